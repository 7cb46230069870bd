"""The weights of a device's own blocks, read out of a version's file without the others."""

from collections.abc import Collection
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.codec.weights import UNREADABLE
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.task_description import Parameter, TaskDescription


def read_own_weights(path: Path, task: TaskDescription, blocks: Collection[int]) -> FloatVector:
    """The flat vector f32[P] of a safetensors file with the tensors of `blocks`, and 0 in place of all others, which
    take no more than address space.

    Raises:
        ProtocolError: `MALFORMED`, `WRONG_SHAPE` (naming the tensor) or `NOT_FINITE`.
    """
    vector = np.zeros(task.parameter_count, np.float32)
    ends = accumulate(parameter.size for parameter in task.parameters)
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            for parameter, end in zip(task.parameters, ends, strict=True):
                if parameter.block not in blocks:
                    continue
                if parameter.name not in names:
                    raise ProtocolError(Reason.WRONG_SHAPE, f"weights: {parameter.name} is missing")
                vector[end - parameter.size : end] = _checked(file.get_tensor(parameter.name), parameter)
    except SafetensorError as error:
        raise ProtocolError(Reason.MALFORMED, f"weights: not a safetensors file ({error})") from error
    except UNREADABLE as error:
        raise ProtocolError(Reason.WRONG_SHAPE, f"weights: a tensor is not float32 ({error})") from error
    return vector


def _checked(found: NDArray[np.generic], parameter: Parameter) -> FloatVector:
    if list(found.shape) != list(parameter.shape) or found.dtype != np.float32:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"weights: {parameter.name} is {found.dtype}{list(found.shape)}, expected float32{parameter.shape}",
        )
    if not np.isfinite(found).all():
        raise ProtocolError(Reason.NOT_FINITE, f"weights: {parameter.name} contains NaN or infinity")
    return found.astype(np.float32, copy=False).ravel()
