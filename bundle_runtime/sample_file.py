"""Reads samples from a file, and takes no other than a device would take."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bundle_runtime.sample_checks import find_misfits
from bundle_runtime.sample_table import Arrays, read_csv, read_json_lines
from bundle_runtime.samples import Samples
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.sample_schema import qualified
from fleet_protocol.task_description import TaskDescription

NO_SAMPLES = "write them with numpy.savez"

NUMBERS: Final = "biuf"
"""The kinds of dtype whose values are numbers: truth values, integers, and floats."""


def read_samples(path: Path, task: TaskDescription) -> Samples:
    """Read labelled samples of a task; nothing in the file is ever unpickled.

    `.npz` and `.safetensors` hold the arrays `inputs` [N, *shape] and `labels`: [N] where they are classes, else
    [N, values], each with `label.shape` behind that; of several, `inputs.NAME` and `labels.NAME`. `.csv` and `.jsonl`
    are described in `sample_table`. What has no label needs none.

    Raises:
        ConfigurationError: it can't be read, or the first row with a value that the task does not take.
    """
    arrays = _read(path, task)
    shapes = {qualified("inputs", name): tuple(schema.shape) for name, schema in task.each_input.items()}
    labelled = {name: label.value_shape for name, label in task.each_label.items() if label.size}
    shapes |= {qualified("labels", name): shape for name, shape in labelled.items()}
    count = sum(arrays.arrays.get(next(iter(shapes)), np.empty(0)).shape[:1])
    for name, shape in shapes.items():
        _check_array(path, arrays.arrays, name, (count, *shape), task.task)
    inputs = _row([arrays.arrays[qualified("inputs", name)] for name in task.each_input], count)
    labels = _row([arrays.arrays[qualified("labels", name)] for name in labelled], count)
    if misfits := find_misfits(inputs, labels, task.each_input, task):
        raise ConfigurationError(
            f"samples {path}, {arrays.place(int(misfits.rows[0]))}: {misfits.reason}"
            f" ({misfits.rows.size} of {len(inputs)} samples don't fit)"
        )
    kept = labels[:, 0].astype(np.int64) if task.label.is_index else labels.astype(np.float32)
    return Samples(np.ascontiguousarray(inputs.reshape(-1, *task.input.shape), np.float32), kept)


def _row(arrays: Sequence[NDArray[Any]], count: int) -> NDArray[Any]:
    """The values of each sample, one array's behind the other's."""
    rows = [_numbers(array).reshape(count, -1) for array in arrays]
    return np.concatenate(rows, axis=1) if rows else np.empty((count, 0), np.float32)


def _check_array(path: Path, arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], task: str) -> None:
    if name not in arrays:
        raise ConfigurationError(
            f"samples {path}: the array {name!r} is missing; there is {', '.join(sorted(arrays)) or 'none'}"
        )
    array = arrays[name]
    if array.dtype.kind not in NUMBERS:
        raise ConfigurationError(f"samples {path}: {name!r} holds {array.dtype}, no numbers; write it as float32")
    if array.shape != shape or not len(array):
        wanted = ", ".join(map(str, (shape[0] or "N", *shape[1:])))
        raise ConfigurationError(
            f"samples {path}: {name!r} has shape {list(array.shape)}, expected [{wanted}] as the task {task} says"
        )


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """As float32 or float64, whichever holds all its values; float16 has no room for the widest bounds."""
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _read(path: Path, task: TaskDescription) -> Arrays:
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise ConfigurationError(f"samples {path}: the name must end in {', '.join(sorted(_READERS))}")
    try:
        return reader(path, task)
    except ConfigurationError:
        raise
    except OSError as error:
        raise ConfigurationError(f"samples {path}: {why_unreadable(error, NO_SAMPLES)}") from error
    except Exception as error:  # zipfile, zlib, numpy and safetensors have no base in common
        raise ConfigurationError(f"samples {path}: it can't be read: {error}; write it again") from error


def _read_npz(path: Path, _: TaskDescription) -> Arrays:
    with path.open("rb") as file:
        if not is_zipfile(file):  # numpy would take it for another kind of file, and say how to unpickle it
            raise ValueError("it is cut off, or no file of numpy.savez")
        file.seek(0)
        with np.load(file, allow_pickle=False) as members:
            return Arrays({name: members[name] for name in members.files})


def _read_safetensors(path: Path, _: TaskDescription) -> Arrays:
    return Arrays(dict(load_file(path)))


_READERS: Final[Mapping[str, Callable[[Path, TaskDescription], Arrays]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".csv": read_csv,
    ".jsonl": read_json_lines,
}
