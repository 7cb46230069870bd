"""Reads samples from a file, and takes no other than a device would take."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bundle_runtime.sample_checks import find_misfits
from bundle_runtime.sample_table import Arrays, read_csv, read_json_lines
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError, why_unreadable

NO_SAMPLES = "write them with numpy.savez"

NUMBERS: Final = "biuf"
"""The kinds of dtype whose values are numbers: truth values, integers, and floats."""


def read_samples(path: Path, task: TaskDescription) -> Samples:
    """Read labelled samples of a task; nothing in the file is ever unpickled.

    `.npz` and `.safetensors` hold the arrays `inputs` [N, *shape] and `labels`: [N] where they are classes, else
    [N, values]. `.csv` and `.jsonl` are described in `sample_table`. A task that learns to give back its inputs needs
    no labels.

    Raises:
        ConfigurationError: it can't be read, or the first row with a value that the task does not take.
    """
    arrays = _read(path, task)
    counted = {"inputs": tuple(task.input.shape)}
    if task.label.kind != "reconstruction":
        counted["labels"] = () if task.label.kind == "class" else (task.label.outputs,)
    for name, shape in counted.items():
        _check_array(path, arrays.arrays, name, shape, task.task)
    inputs = _numbers(arrays.arrays["inputs"])
    labels = _numbers(arrays.arrays["labels"]) if "labels" in counted else np.empty((len(inputs), 0), np.float32)
    if misfits := find_misfits(inputs, labels, task.input, task):
        raise ConfigurationError(
            f"samples {path}, {arrays.place(int(misfits.rows[0]))}: {misfits.reason}"
            f" ({misfits.rows.size} of {len(inputs)} samples don't fit)"
        )
    kept = labels.astype(np.int64) if task.label.kind == "class" else labels.astype(np.float32)
    return Samples(np.ascontiguousarray(inputs, np.float32), kept)


def _check_array(path: Path, arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], task: str) -> None:
    if name not in arrays:
        raise ConfigurationError(
            f"samples {path}: the array {name!r} is missing; there is {', '.join(sorted(arrays)) or 'none'}"
        )
    array = arrays[name]
    if array.dtype.kind not in NUMBERS:
        raise ConfigurationError(f"samples {path}: {name!r} holds {array.dtype}, no numbers; write it as float32")
    count = sum(arrays["inputs"].shape[:1])
    if array.shape != (count, *shape) or not count:
        wanted = ", ".join(map(str, (count or "N", *shape)))
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
