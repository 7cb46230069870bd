"""Weights as a safetensors file and as the flat float32 vector that graphs and aggregation work on."""

import json
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.task_description import Parameter

_ALIGNMENT = 8
"""Bytes; the format asks for it."""
UNREADABLE: Final = (SafetensorError, KeyError, TypeError, AttributeError)
"""What safetensors raises for what is no such file, and for a tensor whose dtype numpy lacks (BF16, F8)."""


def write_weights(vector: FloatVector, parameters: Sequence[Parameter]) -> bytes:
    """A safetensors file of the named tensors; the same vector gives the same bytes, wherever and whenever.

    Devices rebuild the file that the coordinator named by its hash, so nothing is left to a library's release: the
    tensors are in the parameters' order, the header is JSON without spaces, padded with spaces to 8 bytes.
    """
    header = {}
    start = 0
    for parameter in parameters:
        end = start + 4 * parameter.size
        header[parameter.name] = {"dtype": "F32", "shape": parameter.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + vector.astype("<f4").tobytes()


def read_weights(data: bytes, parameters: Sequence[Parameter]) -> FloatVector:
    """The flat vector (float32, contiguous) of a safetensors file.

    Raises:
        ProtocolError: `MALFORMED`, `WRONG_SHAPE` (naming the tensor) or `NOT_FINITE`.
    """
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ProtocolError(Reason.MALFORMED, f"weights: not a safetensors file ({error})") from error
    except UNREADABLE as error:
        raise ProtocolError(Reason.WRONG_SHAPE, f"weights: a tensor is not float32 ({error})") from error
    expected = {parameter.name for parameter in parameters}
    if tensors.keys() != expected:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"weights: tensors {sorted(tensors.keys() ^ expected)[:4]} are missing or unknown",
        )
    for parameter in parameters:
        found = tensors[parameter.name]
        if list(found.shape) != list(parameter.shape) or found.dtype != np.float32:
            raise ProtocolError(
                Reason.WRONG_SHAPE,
                f"weights: {parameter.name} is {found.dtype}{list(found.shape)}, expected float32{parameter.shape}",
            )
    vector = np.concatenate([tensors[parameter.name].ravel() for parameter in parameters])
    if not np.isfinite(vector).all():
        raise ProtocolError(Reason.NOT_FINITE, "weights contain NaN or infinity")
    return vector
