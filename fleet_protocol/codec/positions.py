"""Stage 3, pack indices: sorted indices are encoded as gaps, the entries skipped between them, in one of three codes.

Golomb-Rice (Golomb 1966, Rice and Plaunt 1971) is for positions that lie anywhere: `gap >> r` in unary and the lowest r
bits. Exp-Golomb (Teuhola 1978) is for what training really changes, some rows and columns far more than others: the
length of `gap + 2^r` in unary and its lower bits. Where rows resemble each other, gaps as whole bytes are shorter after
zstd. Tensors may be scanned column by column.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.bits import MAX_WIDTH, BitReader, Bits, equal_width, fixed_width, number_bits, unary
from fleet_protocol.codec.byte_gaps import read_numbers, write_numbers
from fleet_protocol.codec.leb128 import read_leb128, write_leb128
from fleet_protocol.codec.selection import Selection, random_indices
from fleet_protocol.codec.sparse import IndexVector, TensorLayout, every_index
from fleet_protocol.errors import ProtocolError, Reason

ALL, SEEDED, BYTES, BYTES_BY_COLUMN = range(4)
"""First bytes of positions in whole bytes: every entry, `random_indices`, gaps as LEB128 numbers in either order."""

USUAL_SHARES: Final = (1, 2, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)
"""Kept entries in 10,000 that have a short code: a count that is one of them travels in four bits."""

FEWEST_FOR_BYTES: Final = 256
"""Gaps below which zstd finds too little to make up for whole bytes."""

RICE, EXP_GOLOMB = range(2)

_SHARE_BITS = 4
_ORDER_BITS = 4
_MAX_ORDER = 15
_MOST_STEP_BITS = 2 * MAX_WIDTH + 1
_SAMPLED_GAPS = 512
_CHUNK_ENTRIES = 1 << 13


@dataclass(frozen=True, slots=True)
class GapCode:
    """`kind` is RICE or EXP_GOLOMB, `parameter` its r; `bits` is what the gaps take in it."""

    kind: int
    parameter: int
    bits: int


@dataclass(frozen=True, slots=True)
class GapHead:
    """The head of gaps in bits: how many there are, in which code and order. It takes `bits` bits itself."""

    by_column: bool
    count: int
    kind: int
    parameter: int
    bits: int

    def most_unary_bits(self, size: int) -> int:
        """What the unary parts of all gaps take at most, for a vector of `size` entries."""
        if self.kind == RICE:
            return self.count + ((size - self.count) >> self.parameter)
        # Lengths add up to most where all gaps are equal, and then to at most 1.07 bits for each entry of the vector.
        return min(size + size // 8 + 1, self.count * (MAX_WIDTH + 1))


@dataclass(frozen=True, slots=True)
class PackedPositions:
    """Positions as `bits`, behind which signs may go on, or as whole bytes in `data`; the other one is empty."""

    bits: Bits | None = None
    data: bytes = b""


def pack_positions(selection: Selection, layout: TensorLayout) -> list[PackedPositions]:
    """The forms of a selection that may be the shortest: the best Rice code, and those between which zstd decides."""
    indices = selection.indices
    if indices.size == layout.size:
        return [PackedPositions(data=bytes([ALL]))]
    count = write_leb128(indices.size)
    if selection.seed is not None:
        return [PackedPositions(data=bytes([SEEDED]) + count + struct.pack("<Q", selection.seed))]
    orders = [gaps_of(indices)]
    if layout.has_rows:
        orders.append(gaps_of(_scan_by_column(indices, layout)))
    codes = [choose_code(gaps, layout.size) for gaps in orders]
    by_column = len(orders) > 1 and codes[1].bits < codes[0].bits
    gaps, code = orders[by_column], codes[by_column]
    forms = [PackedPositions(bits=_code(gaps, code, layout.size, by_column=by_column))]
    if layout.has_rows and indices.size >= FEWEST_FOR_BYTES:
        head = bytes([BYTES_BY_COLUMN if by_column else BYTES])
        forms.append(PackedPositions(data=head + count + write_numbers(gaps)))
    return forms


def unpack_bytes(body: memoryview, layout: TensorLayout) -> tuple[IndexVector, bool, int]:
    """Ascending indices in whole bytes at the front of `body`, whether by column, and the bytes that held them.

    Raises:
        ProtocolError: `MALFORMED`, `WRONG_SHAPE` or `INDEX_OUT_OF_RANGE`.
    """
    try:
        form = body[0]
        if form == ALL:
            return every_index(layout.size), False, 1
        if form > BYTES_BY_COLUMN:
            raise ProtocolError(Reason.MALFORMED, f"positions start with {form}, not with a known form")
        count, position = read_leb128(body, 1)
        _check_count(count, layout.size)
        if form == SEEDED:
            (seed,) = struct.unpack_from("<Q", body, position)
            return random_indices(seed, count, layout.size), False, position + 8
    except (IndexError, struct.error) as error:
        raise ProtocolError(Reason.MALFORMED, "update ends in the head of its positions") from error
    gaps, used = read_numbers(body[position:], count)
    indices = _indices_from(gaps, layout.size)
    if form == BYTES_BY_COLUMN:
        _scan_by_row(indices, layout)
    return indices, form == BYTES_BY_COLUMN, position + used


def unpack_bits(reader: BitReader, layout: TensorLayout) -> tuple[IndexVector, bool]:
    """Ascending indices from gaps in bits, and whether they were scanned by column.

    Raises:
        ProtocolError: `MALFORMED`, `WRONG_SHAPE` or `INDEX_OUT_OF_RANGE`.
    """
    head = read_head(reader, layout.size)
    read = _read_rice if head.kind == RICE else _read_exp_golomb
    indices = _indices_from(read(reader, head, layout.size), layout.size)
    if head.by_column:
        _scan_by_row(indices, layout)
    return indices, head.by_column


def read_head(reader: BitReader, size: int) -> GapHead:
    """The head of gaps in bits, for a vector of `size` entries.

    Raises:
        ProtocolError: `MALFORMED` or `WRONG_SHAPE`.
    """
    by_column = bool(reader.number(1))
    share = reader.number(_SHARE_BITS)
    count = _usual_count(share, size) if share else reader.number(size.bit_length())
    _check_count(count, size)
    kind = reader.number(1)
    if kind == EXP_GOLOMB:
        return GapHead(by_column, count, kind, reader.number(_ORDER_BITS), reader.position)
    (step,) = reader.unary(1, _MOST_STEP_BITS).tolist()
    parameter = expected_parameter(count, size) + ((step >> 1) ^ -(step & 1))
    if not 0 <= parameter <= MAX_WIDTH:
        raise ProtocolError(Reason.MALFORMED, f"Rice parameter {parameter} is not from 0 to {MAX_WIDTH}")
    return GapHead(by_column, count, kind, parameter, reader.position)


def gaps_of(indices: IndexVector) -> IndexVector:
    """Ascending indices to gaps: entries skipped since the one before, so neighbours have gap 0."""
    gaps = indices.copy()
    gaps[1:] -= indices[:-1] + 1
    return gaps


def expected_parameter(count: int, size: int) -> int:
    """The Rice parameter that uniform positions want: the logarithm of two thirds of the mean gap (Kiely 2004)."""
    return min(MAX_WIDTH, max(0, (2 * (size - count) // (3 * max(1, count))).bit_length() - 1))


def choose_code(gaps: IndexVector, size: int) -> GapCode:
    """The code for the gaps of a vector of `size` entries; its parameter is the best one for a sample of them."""
    sample = gaps[:: max(1, gaps.size // _SAMPLED_GAPS)]
    expected = expected_parameter(gaps.size, size)
    near = np.arange(max(0, expected - 1), min(MAX_WIDTH, expected + 1) + 1)
    costs = (sample >> near[:, None]).sum(axis=1) + near * sample.size + [_zigzag(r - expected) for r in near.tolist()]
    parameter = int(near[costs.argmin()])
    rice_bits = int((gaps >> parameter).sum()) + (parameter + 1) * gaps.size
    orders = np.arange(min(expected + 1, _MAX_ORDER) + 1)
    order = int((2 * _lengths(sample, orders[:, None]).sum(axis=1) - orders * sample.size).argmin())
    golomb_bits = int(2 * _lengths(gaps, order).sum()) - (order + 1) * gaps.size
    if golomb_bits + _ORDER_BITS < rice_bits + 1 + _zigzag(parameter - expected):
        return GapCode(EXP_GOLOMB, order, golomb_bits + _ORDER_BITS)
    return GapCode(RICE, parameter, rice_bits + 1 + _zigzag(parameter - expected))


def _lengths(gaps: IndexVector, order: int | IndexVector) -> IndexVector:
    """The bit lengths of `gaps + 2^order`."""
    return np.frexp((gaps + (np.int64(1) << order)).astype(np.float64))[1]


def _check_count(count: int, size: int) -> None:
    if count > size:
        raise ProtocolError(Reason.WRONG_SHAPE, f"{count} entries for {size} parameters")


def _usual_count(share: int, size: int) -> int:
    return max(1, (USUAL_SHARES[share - 1] * size + 5000) // 10_000)


@lru_cache(maxsize=64)
def _count_code(count: int, size: int) -> tuple[int, int]:
    """A number for `count`, and the bits that it is written in."""
    for share in range(1, len(USUAL_SHARES) + 1):
        if _usual_count(share, size) == count:
            return share, _SHARE_BITS
    return count, _SHARE_BITS + size.bit_length()


def _code(gaps: IndexVector, code: GapCode, size: int, *, by_column: bool) -> Bits:
    if code.kind == RICE:
        prefixes = gaps >> code.parameter
        lower = equal_width(gaps, code.parameter)
        step = _zigzag(code.parameter - expected_parameter(gaps.size, size))
        head = number_bits(1, step + 1)
    else:
        lengths = _lengths(gaps, code.parameter)
        prefixes = lengths - code.parameter - 1
        lower = fixed_width(gaps + (1 << code.parameter), (lengths - 1).astype(np.int8))
        head = number_bits(code.parameter, _ORDER_BITS)
    count, width = _count_code(gaps.size, size)
    return np.concatenate([
        number_bits((by_column << width | count) << 1 | code.kind, width + 2),
        head,
        unary(prefixes),
        lower,
    ])  # fmt: skip


def _read_rice(reader: BitReader, head: GapHead, size: int) -> NDArray[np.int32]:
    gaps = reader.unary(head.count, head.most_unary_bits(size))
    gaps <<= np.int32(head.parameter)
    gaps += reader.fixed_width(np.full(head.count, head.parameter, np.int8))
    return gaps


def _read_exp_golomb(reader: BitReader, head: GapHead, size: int) -> NDArray[np.int32]:
    widths = reader.unary(head.count, head.most_unary_bits(size))
    widths += head.parameter
    if head.count and int(widths.max()) > MAX_WIDTH:
        raise ProtocolError(Reason.INDEX_OUT_OF_RANGE, f"a gap is not within {size} entries")
    gaps = reader.fixed_width(widths.astype(np.int8))
    gaps += (np.int32(1) << widths) - np.int32(1 << head.parameter)
    return gaps


def _indices_from(gaps: IndexVector | NDArray[np.int32], size: int) -> IndexVector:
    indices = gaps.astype(np.int64, copy=False)
    indices += 1
    np.cumsum(indices, out=indices)  # in place: with a dtype, numpy would copy the gaps once more
    indices -= 1
    if indices.size and int(indices[-1]) >= size:
        raise ProtocolError(Reason.INDEX_OUT_OF_RANGE, f"index {int(indices[-1])} among {size} parameters")
    return indices


def _zigzag(step: int) -> int:
    """0, -1, 1, -2 become 0, 1, 2, 3."""
    return (step << 1) ^ (step >> 63)


def _scan_by_column(indices: IndexVector, layout: TensorLayout) -> IndexVector:
    turned = indices.copy()
    _turn(turned, layout, from_width=layout.columns, to_width=layout.rows)
    turned.sort()
    return turned


def _scan_by_row(turned: IndexVector, layout: TensorLayout) -> None:
    """Undo `_scan_by_column` in place."""
    _turn(turned, layout, from_width=layout.rows, to_width=layout.columns)
    turned.sort()


def _turn(indices: IndexVector, layout: TensorLayout, *, from_width: IndexVector, to_width: IndexVector) -> None:
    """Transpose the ascending `indices` within their tensors, in place and in chunks, to save memory."""
    for begin in range(0, indices.size, _CHUNK_ENTRIES):
        chunk = indices[begin : begin + _CHUNK_ENTRIES]
        tensor = np.repeat(np.arange(layout.rows.size), layout.kept_per_tensor(chunk))
        start = layout.starts[tensor]
        outer, inner = np.divmod(chunk - start, from_width[tensor])
        chunk[:] = start + inner * to_width[tensor] + outer
