"""What a device keeps to itself in split learning, as the bytes that would show it on the wire."""

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import permutations

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from broker_coordinator.aggregation.version import version_zero
from bundle_runtime.blocks import BlockRunner
from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.activations import pack_activations, unpack_rows
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_plan import WireFormat

PIECE_BYTES = 24
FEWEST_DIFFERENT = 12
"""Bytes in a piece: chance gives none of them, and no run of zeros is one."""
PIECES_OF_PACKED = 6
ZSTD_MAGIC = zstandard.MAGIC_NUMBER.to_bytes(4, "little")
PACKED_MASK, PACKED_ZSTD = 0xF0, 0x30
"""Of the first byte of packed values that are compressed: docs/wire-format.md."""
FIRST_OF_ZLIB, DETECT_GZIP = (0x1F, 0x78), 32
WIRES: Sequence[WireFormat] = ("float32", "float16", "int8")

Secrets = Mapping[str, Collection[bytes]]
"""By what they would show, pieces of which none may be in what is published."""


def found(secrets: Secrets, published: Iterable[bytes]) -> set[str]:
    """What is shown by what was published."""
    everything = b"".join(published)
    return {kind for kind, pieces in secrets.items() if any(piece in everything for piece in pieces)}


def pieces(data: bytes) -> list[bytes]:
    """All that is telling of some bytes, in pieces one behind the other."""
    cut = (data[at : at + PIECE_BYTES] for at in range(0, len(data) - PIECE_BYTES + 1, PIECE_BYTES))
    return [piece for piece in cut if len(set(piece)) >= FEWEST_DIFFERENT]


def unpacked(published: Iterable[bytes]) -> list[bytes]:
    """Whatever decompresses in what was published, at any offset: zlib and zstd frames, and values as a step packs
    them, whose zstd frame has lost its magic. Of the latter chance makes some that repeat a byte or two: these are
    left out.
    """
    return [content for data in set(published) for at in range(len(data)) for content in _frame_at(data, at)]


def _frame_at(data: bytes, at: int) -> Iterator[bytes]:
    """What the frame that begins there holds, if one does."""
    if data[at] in FIRST_OF_ZLIB:
        inflated = zlib.decompressobj(wbits=zlib.MAX_WBITS | DETECT_GZIP)
        content = _decompressed(data[at:], inflated.decompress)
        is_whole = inflated.eof
    elif data[at] & PACKED_MASK == PACKED_ZSTD or data.startswith(ZSTD_MAGIC, at):
        is_whole = data.startswith(ZSTD_MAGIC, at)
        frame = data[at:] if is_whole else ZSTD_MAGIC + data[at + 1 :]
        content = _decompressed(frame, zstandard.ZstdDecompressor().decompressobj().decompress)
    else:
        return
    if is_whole or len(set(content)) >= FEWEST_DIFFERENT:
        yield content


def _decompressed(frame: bytes, decompress: Callable[[bytes], bytes]) -> bytes:
    """Empty where it is no frame."""
    try:
        return decompress(frame)
    except (zstandard.ZstdError, zlib.error):
        return b""


def sample_texts(samples: Samples) -> dict[str, bytes]:
    """The samples in every form that a program has them in; values are within 0 and 1."""
    inputs = samples.inputs
    return {
        "samples as float32": inputs.tobytes(),
        "samples as float16": inputs.astype(np.float16).tobytes(),
        "samples as uint8": np.round(inputs * 255).astype(np.uint8).tobytes(),
        "samples as int8": np.round(inputs * 127).astype(np.int8).tobytes(),
        "samples as JSON": json.dumps(inputs.ravel().tolist()).encode(),
        "samples as compact JSON": msgspec.json.encode(inputs.ravel().tolist()),
    }


def label_texts(labels: NDArray[np.int64], classes: int) -> dict[str, bytes]:
    """The labels of a mini-batch, whole, in every form; all are the same, so their order does not matter."""
    same = labels.tolist()
    forms = {f"labels as {kind}": labels.astype(kind).tobytes() for kind in ("uint8", "int32", "int64", "float32")}
    return forms | {
        "labels one-hot": np.eye(classes, dtype=np.float32)[labels].tobytes(),
        "labels as JSON": json.dumps(same).encode(),
        "labels as compact JSON": msgspec.json.encode(same),
        "a sample's label as JSON": json.dumps({"label": same[0]}).encode()[1:-1],
    }


def weights_of_first_version(bundle: Bundle) -> FloatVector:
    """f32[P] as devices and helpers have them: rounded, where the task's versions are."""
    version = bundle.description.version
    return read_weights(version_zero(bundle).weights, version.parameters)[: bundle.description.parameter_count]


class Activations:
    """Of the first mini-batch of a round, which holds all of a device's samples, in whichever order."""

    def __init__(self, bundle: Bundle, samples: Samples) -> None:
        self._runner = BlockRunner(bundle.description, bundle.files, [0, 1])
        self._weights = weights_of_first_version(bundle)
        self._samples = samples

    def of(self, order: Sequence[int]) -> NDArray[np.float32]:
        """What leaves the device, f32[N, *shape]."""
        return self._forward(0, self._samples.inputs[list(order)])

    def answered(self, sent: bytes, wire: WireFormat, shape: Sequence[int]) -> NDArray[np.float32]:
        """What the helper makes of that, as it was packed."""
        return self._forward(1, unpack_rows(sent, wire, len(self._samples), shape))

    def secrets(self) -> dict[str, set[bytes]]:
        """Rows as numbers, and in all orders as a request or an answer packs them."""
        secret: dict[str, set[bytes]] = {kind: set() for kind in ("float32", "float16", "packed", "answers packed")}
        rows = self.of(range(len(self._samples)))
        secret["float32"].update(pieces(rows.tobytes()))
        secret["float16"].update(pieces(rows.astype(np.float16).tobytes()))
        for order in permutations(range(len(self._samples))):
            values = self.of(order)
            for wire in WIRES:
                packed = pack_activations(values, wire)
                secret["packed"].update(pieces(packed)[:PIECES_OF_PACKED])
                answer = pack_activations(self.answered(packed, wire, values.shape[1:]), wire)
                secret["answers packed"].update(pieces(answer)[:PIECES_OF_PACKED])
        return {f"activations {kind}": needles for kind, needles in secret.items()}

    def _forward(self, block: int, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._runner.forward(block, self._runner.weights_of(block, self._weights), inputs, seed=0)
