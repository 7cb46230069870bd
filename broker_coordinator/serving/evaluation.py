"""How good a version is on samples that no device trains on: the bundle's `evaluate.onnx` over a file of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.records import Evaluation
from bundle_runtime.bundle_folder import Bundle
from fleet_protocol.bundle import EVALUATE_FILE, TaskDescription
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError

SAMPLES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`inputs` float32 (N, *input.shape); `labels` int64 (N) or float32 (N, outputs), None for reconstruction."""

    inputs: NDArray[np.float32]
    labels: NDArray[Any] | None


def read_held_out(path: Path, description: TaskDescription) -> HeldOut:
    """Read the arrays `inputs` and `labels` from a .safetensors or .npz file; nothing in it is ever unpickled.

    Raises:
        ConfigurationError: it can't be read, or does not hold samples of this task.
    """
    arrays = _read_arrays(path)
    shapes = {"inputs": tuple(description.input.shape)}
    if description.label.kind != "reconstruction":
        shapes["labels"] = () if description.label.kind == "class" else (description.label.outputs,)
    for name, shape in shapes.items():
        if name not in arrays:
            raise ConfigurationError(f"{path} lacks the array {name!r}; it holds {', '.join(sorted(arrays)) or 'none'}")
        if arrays[name].shape[1:] != shape or len(arrays[name]) != len(arrays["inputs"]) or not len(arrays[name]):
            raise ConfigurationError(
                f"{path}: {name!r} has shape {arrays[name].shape}, expected ({len(arrays['inputs']) or 'N'},"
                f" {', '.join(map(str, shape))}) as the task {description.task} says"
            )
    label_type = np.int64 if description.label.kind == "class" else np.float32
    labels = arrays["labels"].astype(label_type) if "labels" in shapes else None
    return HeldOut(np.ascontiguousarray(arrays["inputs"], np.float32), labels)


def evaluate(bundle: Bundle, version: Version, held_out: HeldOut) -> Evaluation:
    """The mean loss of a version, and the share of right answers where labels are classes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle.files[EVALUATE_FILE], options, providers=["CPUExecutionProvider"])
    weights = read_weights(version.weights, bundle.description.parameters)
    names, count = [output.name for output in session.get_outputs()], len(held_out.inputs)
    sums = dict.fromkeys(names, 0.0)
    for begin in range(0, count, SAMPLES_AT_ONCE):
        feeds = _feeds(session, weights, held_out, slice(begin, begin + SAMPLES_AT_ONCE))
        for name, values in zip(names, session.run(names, feeds), strict=True):
            sums[name] += float(values.sum(dtype=np.float64))
    accuracy = sums["correct"] / count if "correct" in sums else None
    return Evaluation(version.number, count, sums["losses"] / count, accuracy)


def _feeds(
    session: onnxruntime.InferenceSession, weights: FloatVector, held_out: HeldOut, rows: slice
) -> dict[str, NDArray[Any]]:
    feeds = {"weights": weights, "inputs": held_out.inputs[rows]}
    if held_out.labels is not None:
        feeds["labels"] = held_out.labels[rows]
    return {entry.name: feeds[entry.name] for entry in session.get_inputs()}


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        if path.suffix == ".safetensors":
            return dict(load_file(path))
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise ConfigurationError(f"held-out samples {path}: {error}; write them with numpy.savez") from error
    raise ConfigurationError(f"held-out samples {path}: the name must end in .npz or .safetensors")
