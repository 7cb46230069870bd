"""Reads samples from a file: arrays `inputs` and `labels`, checked against their task."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bundle_runtime.samples import Samples
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError, why_unreadable

NO_SAMPLES = "write them with numpy.savez"


def read_samples(path: Path, task: TaskDescription) -> Samples:
    """Read the arrays `inputs` and `labels` from a .safetensors or .npz file; nothing in it is ever unpickled.

    A task that learns to give back its inputs needs no labels.

    Raises:
        ConfigurationError: it can't be read, or does not contain samples of this task.
    """
    arrays = _read_arrays(path)
    shapes = {"inputs": tuple(task.input.shape)}
    if task.label.kind != "reconstruction":
        shapes["labels"] = () if task.label.kind == "class" else (task.label.outputs,)
    for name, shape in shapes.items():
        _check_shape(path, arrays, name, shape, task.task)
    inputs = np.ascontiguousarray(arrays["inputs"], np.float32)
    return Samples(inputs, _labels(path, arrays.get("labels"), len(inputs), task))


def _check_shape(path: Path, arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], task: str) -> None:
    if name not in arrays:
        raise ConfigurationError(f"{path} lacks the array {name!r}; it contains {', '.join(sorted(arrays)) or 'none'}")
    count = len(arrays["inputs"])
    if arrays[name].shape[1:] != shape or len(arrays[name]) != count or not count:
        raise ConfigurationError(
            f"{path}: {name!r} has shape {arrays[name].shape}, expected ({count or 'N'}, {', '.join(map(str, shape))})"
            f" as the task {task} says"
        )


def _labels(
    path: Path, labels: NDArray[Any] | None, count: int, task: TaskDescription
) -> NDArray[np.int64] | NDArray[np.float32]:
    if task.label.kind == "reconstruction" or labels is None:
        return np.empty((count, 0), np.float32)
    if task.label.kind != "class":
        return labels.astype(np.float32)
    if not 0 <= labels.min() <= labels.max() < task.label.classes:
        raise ConfigurationError(
            f"{path}: labels are {labels.min()} to {labels.max()}, {task.task} takes 0 to {task.label.classes - 1}"
        )
    return labels.astype(np.int64)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        if path.suffix == ".safetensors":
            return dict(load_file(path))
    except OSError as error:
        raise ConfigurationError(f"samples {path}: {why_unreadable(error, NO_SAMPLES)}") from error
    except (ValueError, EOFError, SafetensorError) as error:
        raise ConfigurationError(f"samples {path}: {error}; write them with numpy.savez") from error
    raise ConfigurationError(f"samples {path}: the name must end in .npz or .safetensors")
