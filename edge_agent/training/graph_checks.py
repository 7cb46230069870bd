"""Why an onnxruntime can't load a graph, or can't take what a task feeds it, in words that name the remedy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

READABLE: Final = (("1.19", 21, 10), ("1.23", 23, 11), ("1.31", 26, 13))
"""An onnxruntime, and the newest opset and IR version that it was seen to load."""
IR_VERSION_FIELD, OPSET_IMPORT_FIELD = 1, 8
DOMAIN_FIELD, VERSION_FIELD = 1, 2
"""Field numbers of ModelProto and OperatorSetIdProto in onnx.proto."""
VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
DTYPES: Final = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class GraphInput(Protocol):
    """What a session says of an input; free axes are text or None."""

    name: str
    type: str
    shape: list[int | str | None]


def why_not_loaded(name: str, model: bytes, installed: str, error: Exception) -> str:
    """`error` is what the onnxruntime of version `installed` raised on loading `model`."""
    own_words = str(error).strip()
    try:
        ir_version, opset = read_versions(model)
    except ValueError:
        return f"{name} is no ONNX model; fetch or export the bundle anew ({own_words})"
    readers = [version for version, opsets, irs in READABLE if opset <= opsets and ir_version <= irs]
    if readers and _release(readers[0]) <= _release(installed):
        return f"{name} can't be loaded by onnxruntime {installed}; export the bundle anew ({own_words})"
    needed = f"onnxruntime {readers[0]} or newer" if readers else f"an onnxruntime newer than {READABLE[-1][0]}"
    return (
        f"{name} has opset {opset} and IR version {ir_version}, which need {needed}; installed is {installed}:"
        f" update it (pip install --upgrade onnxruntime), or export the bundle for an older opset ({own_words})"
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
                f" {_axes(fed.shape)}; the graph and task.json contradict each other: export the bundle anew"
            )
    return ""


def read_versions(model: bytes) -> tuple[int, int]:
    """IR version, and opset of the default domain, of a serialised ModelProto.

    The device has no `onnx` package; a model's first-level fields are all that is read here.

    Raises:
        ValueError: it is none, or cut short.
    """
    ir_version, opset = 0, 0
    for field, value in _fields(model):
        if field == IR_VERSION_FIELD and isinstance(value, int):
            ir_version = value
        elif field == OPSET_IMPORT_FIELD and isinstance(value, bytes):
            operators = dict(_fields(value))
            if operators.get(DOMAIN_FIELD, b"") in (b"", b"ai.onnx"):
                opset = int(operators.get(VERSION_FIELD, 0))
    if not (ir_version and opset):
        raise ValueError("neither IR version nor opset")
    return ir_version, opset


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message (protobuf.dev/programming-guides/encoding)."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == LENGTH_DELIMITED:
            size, place = _varint(message, place)
        elif kind in (FIXED_64, FIXED_32):
            size = 8 if kind == FIXED_64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(message):
            raise ValueError("cut short")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError("no varint")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _axes(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
