"""Why an onnxruntime can't load a graph, or can't take what a task feeds it, in words that name the remedy."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.task_description import OnnxVersion

READABLE: Final = (
    ("1.19", OnnxVersion(ir_version=10, opset=21)),
    ("1.24", OnnxVersion(ir_version=13, opset=25)),
    ("1.25", OnnxVersion(ir_version=13, opset=26)),
    ("1.32", OnnxVersion(ir_version=14, opset=28)),
)
"""An onnxruntime, and the newest ONNX that it was seen to load; 1.19 is the second training engine's. The last row is
the newest ONNX whose messages `onnx_fields` knows.
"""
DTYPES: Final = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class GraphInput(Protocol):
    """What a session says of an input; free axes are text or None."""

    name: str
    type: str
    shape: list[int | str | None]


def why_too_new(name: str, written_for: OnnxVersion) -> str:
    """Nothing where this edgeflock knows the ONNX that a graph says it is written for: its checks know no later one."""
    newest = READABLE[-1][1]
    if _reads(newest, written_for):
        return ""
    return (
        f"{name} has opset {written_for.opset} and IR version {written_for.ir_version}, this edgeflock knows ONNX up to"
        f" opset {newest.opset} and IR version {newest.ir_version}: update edgeflock, or export the bundle for an older"
        " opset"
    )


def why_not_loaded(name: str, written_for: OnnxVersion, installed: str, error: str) -> str:
    """`error` is what the onnxruntime of version `installed` said of a graph that isn't too new."""
    needed = next(release for release, newest in READABLE if _reads(newest, written_for))
    if _release(needed) <= _release(installed):
        return f"{name} can't be loaded by onnxruntime {installed}; export the bundle again ({error.strip()})"
    return (
        f"{name} has opset {written_for.opset} and IR version {written_for.ir_version}, which need onnxruntime {needed}"
        f" or newer; installed is {installed}: update it (pip install --upgrade onnxruntime), or export the bundle for"
        f" an older opset ({error.strip()})"
    )


def why_not_taken(name: str, entries: Sequence[GraphInput], feeds: Mapping[str, NDArray[np.generic]]) -> str:
    """The first contradiction between a graph's inputs and what there is to feed it, or nothing."""
    for entry in entries:
        if entry.name not in feeds:
            return f"{name} asks for an input {entry.name!r}, which this edgeflock does not know; update edgeflock"
        fed = feeds[entry.name]
        fits = len(fed.shape) == len(entry.shape) and all(
            not isinstance(wanted, int) or wanted == size for wanted, size in zip(entry.shape, fed.shape, strict=True)
        )
        dtype = DTYPES.get(entry.type, entry.type)
        if not fits or fed.dtype.name != dtype:
            return (
                f"{name} takes {entry.name} as {dtype} {_axes(entry.shape)}, the task gives {fed.dtype.name}"
                f" {_axes(fed.shape)}; the graph and task.json contradict each other: export the bundle again"
            )
    return ""


def _reads(newest: OnnxVersion, written_for: OnnxVersion) -> bool:
    return written_for.opset <= newest.opset and written_for.ir_version <= newest.ir_version


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _axes(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
