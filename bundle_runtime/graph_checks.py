"""Why an onnxruntime can't load a graph, or can't take what a task feeds it, in words that name the remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
DTYPES: Final[Mapping[str, "np.dtype[np.generic]"]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(int64)": np.dtype(np.int64),
}


@dataclass(frozen=True, slots=True)
class GraphInput:
    """What a graph takes; free axes are text or None. A `dtype` that no task feeds is in onnxruntime's words."""

    name: str
    dtype: "np.dtype[np.generic] | str"
    shape: tuple[int | str | None, ...]

    @classmethod
    def of(cls, entry: "SessionInput") -> "GraphInput":
        """As a session says it: in Python once, and not at every step."""
        return cls(entry.name, DTYPES.get(entry.type, entry.type), tuple(entry.shape))

    def fits(self, fed: NDArray[np.generic]) -> bool:
        """Whether an array has its dtype and its axes."""
        return (
            fed.dtype == self.dtype
            and len(fed.shape) == len(self.shape)
            and all(
                wanted == size or not isinstance(wanted, int)
                for wanted, size in zip(self.shape, fed.shape, strict=True)
            )
        )


class SessionInput(Protocol):
    """An input in onnxruntime's words."""

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
        fed = feeds.get(entry.name)
        if fed is None:
            return f"{name} asks for an input {entry.name!r}, which this edgeflock does not know; update edgeflock"
        if not entry.fits(fed):
            return (
                f"{name} takes {entry.name} as {entry.dtype} {_axes(entry.shape)}, the task gives {fed.dtype}"
                f" {_axes(fed.shape)}; the graph and task.json contradict each other: export the bundle again"
            )
    return ""


def _reads(newest: OnnxVersion, written_for: OnnxVersion) -> bool:
    return written_for.opset <= newest.opset and written_for.ir_version <= newest.ir_version


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _axes(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
