"""Many small updates of one task decoded in one pass, so that they share the cost of numpy's calls.

Only in the form that nearly every small update has: gaps and signs in bits, not compressed. Updates with equal heads
are the rows of a matrix. Whatever is not exactly as it should be is left to `decode_update`, which says what is wrong.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.bits import MAX_WIDTH, BitReader, Bits
from fleet_protocol.codec.container import read_first_byte
from fleet_protocol.codec.positions import RICE, GapHead, read_head
from fleet_protocol.codec.quantisation import INFINITE_SCALE, SCALE_BYTES, Quantisation, is_one_bit
from fleet_protocol.codec.sparse import Shapes, SparseUpdate, TensorLayout
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import KIB, MIB

MAX_PACKED_BYTES: Final = 4 * KIB
"""Longer updates gain little: their own entries outweigh the calls."""

_BITS_TOGETHER: Final = 3 << 16
"""Of the bodies in one pass: what is made of them stays in the processor's cache."""

_HEAD_BYTES: Final = (2, 6)
"""Most heads end within two bytes, which few updates tell apart; the others within six."""

WORKING_BYTES: Final = 8 * MIB
"""Most memory that decoding takes besides its result, however many updates there are."""

Integers = NDArray[np.signedinteger[Any]]
Flags = NDArray[np.bool_]


def decode_together(packed: Sequence[bytes], shapes: Shapes) -> list[SparseUpdate | None]:
    """What `decode_update` gives for each of `packed`; None for those that must be given to it one by one.

    Besides the result, it takes at most `WORKING_BYTES`.
    """
    layout = TensorLayout.of(shapes)
    alike: dict[tuple[Quantisation, GapHead], list[int]] = defaultdict(list)
    for number, update in enumerate(packed):
        if (form := _usual_form(update, layout.size)) is not None:
            alike[form].append(number)
    decoded: list[SparseUpdate | None] = [None] * len(packed)
    for (quantisation, head), numbers in alike.items():
        for chosen in _passes(packed, numbers, layout.rows.size):
            rows = _Rows.of([packed[number] for number in chosen])
            for number, found in zip(chosen, _decode_rows(rows, head, quantisation, layout), strict=True):
                decoded[number] = found
    return decoded


def _usual_form(update: bytes, size: int) -> tuple[Quantisation, GapHead] | None:
    """How the update is packed, where it is a candidate."""
    if not 1 < len(update) <= MAX_PACKED_BYTES or (quantisation := _signs_in_bits(update[0])) is None:
        return None
    for length in _HEAD_BYTES:
        if (head := _head_within(update[1 : 1 + length], size)) is not None:
            # A count is accepted only where there are bits for it: one of each gap's code, and a sign.
            return (quantisation, head) if 0 < 2 * head.count <= 8 * (len(update) - 1) else None
    return None


@lru_cache(maxsize=256)
def _signs_in_bits(first_byte: int) -> Quantisation | None:
    try:
        first = read_first_byte(bytes([first_byte]))
    except ProtocolError:
        return None
    usual = first.positions_in_bits and not first.compressed and is_one_bit(first.quantisation)
    return first.quantisation if usual else None


@lru_cache(maxsize=4096)
def _head_within(start: bytes, size: int) -> GapHead | None:
    try:
        return read_head(BitReader(memoryview(start)), size)
    except ProtocolError:
        return None


def _passes(packed: Sequence[bytes], numbers: list[int], tensors: int) -> Iterator[list[int]]:
    """In the order of their lengths, so that a long one makes few others wide."""
    numbers.sort(key=lambda number: len(packed[number]))
    while numbers:
        together = max(1, _BITS_TOGETHER // max(8 * len(packed[numbers[-1]]), tensors))
        yield numbers[-together:]
        del numbers[-together:]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Bodies as rows, padded with zeros: their `bits`, and in `windows` the 32 bits (int32) that begin at each byte.

    `lengths` are in bytes, without the padding.
    """

    bits: Bits
    windows: NDArray[np.int32]
    lengths: Integers

    @staticmethod
    def of(packed: Sequence[bytes]) -> "_Rows":
        width = max(map(len, packed)) + 3
        joined = b"".join([update[1:].ljust(width, b"\0") for update in packed])
        data = np.frombuffer(joined, np.uint8).reshape(-1, width)
        bytes_ = data.astype(np.int32)
        windows = bytes_[:, :-3] << 24 | bytes_[:, 1:-2] << 16 | bytes_[:, 2:-1] << 8 | bytes_[:, 3:]
        return _Rows(np.unpackbits(data, axis=1), windows, np.array(list(map(len, packed))) - 1)

    def first_ones(self, begin: int, most: int, count: int) -> tuple[Integers, Flags]:
        """Where the first `count` ones are among `most` bits from `begin` on, and in which rows there are so many."""
        region = self.bits[:, begin : begin + most].view(np.bool_)
        ones = np.flatnonzero(region)
        borders = region.shape[1] * np.arange(len(region) + 1)
        found = np.searchsorted(ones, borders)
        enough = np.diff(found) >= count
        first = np.tile(np.arange(count, dtype=np.int32), (len(region), 1))
        for row in np.flatnonzero(enough):
            first[row] = ones[found[row] : found[row] + count] - borders[row]
        return first, enough

    def numbers(self, starts: Integers, widths: Integers) -> Integers:
        """The numbers of `widths` bits, at most `MAX_WIDTH`, that begin at `starts` in each row."""
        shifts = 32 - widths - (starts & 7)
        found: Integers = self.windows.take(_flat(starts >> 3, self.windows), mode="clip") >> shifts & (1 << widths) - 1
        return found

    def bits_at(self, starts: Integers, count: int) -> Bits:
        """The `count` bits from each row's start on; zeros where there are not so many."""
        found = np.zeros((len(starts), count), np.uint8)
        for row, start in enumerate(starts.tolist()):
            bits = self.bits[row, start : start + count]
            found[row, : bits.size] = bits
        return found

    def scales(self, starts: Integers, present: Flags) -> NDArray[np.uint32]:
        """The bits of a float32 of which the upper half stands here, two bytes for each that is `present`, else 0.

        They stand one behind the other from each row's start byte on.
        """
        places = np.where(present, starts[:, None] + SCALE_BYTES * (np.cumsum(present, axis=1) - 1), 0)
        found = self.windows.take(_flat(places, self.windows), mode="clip").view(np.uint32)
        return np.where(present, (found >> 16 & 0xFF) << 24 | found >> 24 << 16, np.uint32(0))


def _flat(columns: Integers, matrix: NDArray[np.generic]) -> Integers:
    begins: Integers = matrix.shape[1] * np.arange(len(matrix), dtype=np.int32)
    return columns + begins[:, None]


def _decode_rows(
    rows: _Rows, head: GapHead, quantisation: Quantisation, layout: TensorLayout
) -> list[SparseUpdate | None]:
    # A row that breaks a rule goes on with harmless numbers, and is left out at the end.
    indices, signs_at, valid = _read_indices(rows, head, layout.size)
    kept = _kept_per_tensor(indices, layout)
    runs = kept if quantisation is Quantisation.TERNARY else kept.sum(axis=1, keepdims=True)
    end = signs_at + head.count
    scales_at = (end + 7) // 8
    valid &= rows.lengths == scales_at + SCALE_BYTES * (runs > 0).sum(axis=1)
    valid &= rows.numbers(end[:, None], (8 * scales_at - end)[:, None])[:, 0] == 0
    scales = rows.scales(np.where(valid, scales_at, 0), runs > 0)
    valid &= (scales < INFINITE_SCALE << 16).all(axis=1)
    coded = np.repeat(scales.ravel(), runs.ravel()).reshape(indices.shape)
    coded |= rows.bits_at(signs_at, head.count).astype(np.uint32) << 31
    values = coded.view(np.float32)
    if head.by_column:
        indices = _scanned_by_row(indices, kept, layout)
    return [
        SparseUpdate(indices[row].astype(np.int64), values[row].copy()) if fits else None
        for row, fits in enumerate(valid.tolist())
    ]


def _read_indices(rows: _Rows, head: GapHead, size: int) -> tuple[Integers, Integers, Flags]:
    """Ascending indices, as they were scanned; the bit behind their code; and in which rows they are right."""
    every = np.arange(head.count, dtype=np.int32)
    ends, valid = rows.first_ones(head.bits, head.most_unary_bits(size), head.count)
    prefixes = ends.copy()
    prefixes[:, 1:] -= ends[:, :-1] + 1
    if head.kind == RICE:
        widths = np.full((1, head.count), head.parameter, np.int32)
        # All of them together stay below the size, and so below what int32 holds.
        valid &= (ends[:, -1].astype(np.int64) - (head.count - 1)) << head.parameter < size
        gaps = prefixes << head.parameter
    else:
        widths = prefixes + head.parameter
        valid &= widths.max(axis=1) <= MAX_WIDTH
        widths[~valid] = 0
        gaps = (1 << widths) - (1 << head.parameter)
    behind = head.bits + ends[:, -1:] + 1 + np.cumsum(widths, axis=1, dtype=np.int32)
    starts, signs_at = behind - widths, behind[:, -1]
    valid &= signs_at + head.count <= 8 * rows.lengths
    starts[~valid] = 0
    gaps += rows.numbers(starts, widths)
    valid &= gaps.sum(axis=1) < size - head.count + 1
    gaps[~valid] = 0
    return np.cumsum(gaps, axis=1, dtype=np.int32) + every, np.where(valid, signs_at, 0), valid


def _kept_per_tensor(indices: Integers, layout: TensorLayout) -> Integers:
    rows = layout.size * np.arange(len(indices))[:, None]
    cuts = np.searchsorted((indices + rows).ravel(), (rows + layout.starts).ravel()).reshape(len(indices), -1)
    return np.diff(cuts, axis=1)


def _scanned_by_row(turned: Integers, kept: Integers, layout: TensorLayout) -> Integers:
    start, rows, columns = (
        np.tile(each.astype(np.int32), len(turned)).repeat(kept.ravel()).reshape(turned.shape)
        for each in (layout.starts[:-1], layout.rows, layout.columns)
    )
    within = turned - start
    outer = (within / rows).astype(np.int32)  # exact: float64 tells all quotients of int32 apart
    return np.sort(start + (within - outer * rows) * columns + outer, axis=1)
