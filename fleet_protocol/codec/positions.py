"""Stage 3, pack indices: gaps in Golomb-Rice code (Golomb 1966, Rice and Plaunt 1971), adapted to local density.

Sorted indices travel as gaps, the entries skipped since the one before. With parameter r, a gap is a quotient
`gap >> r` in unary and a remainder of r bits; r = 0 is the bitmap. Training moves some rows and columns far more than
others, so every few entries may have a parameter of their own, and tensors may be scanned column by column. Where rows
resemble each other, gaps as whole bytes are shorter after zstd.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.bits import MAX_WIDTH, BitReader, Bits, Widths, fixed_width, unary
from fleet_protocol.codec.byte_gaps import read_numbers, write_numbers
from fleet_protocol.codec.leb128 import read_leb128, write_leb128
from fleet_protocol.codec.selection import Selection, random_indices
from fleet_protocol.codec.sparse import IndexVector, TensorLayout
from fleet_protocol.errors import ProtocolError, Reason

ALL, SEEDED, BYTES = 0xFF, 0xFE, 0xFD
"""First bytes that stand for every entry, for `random_indices`, and for gaps as LEB128 numbers; any other is
group code << 5 | first parameter."""

GROUP_CODES: Final = range(1, 8)
"""A group has 4 << code entries; code 0 is one group of all entries."""

_CHUNK_ENTRIES = 1 << 13


@dataclass(frozen=True, slots=True)
class RiceGroups:
    """A parameter for each group of entries, and the bits that the gaps and the parameters then take."""

    code: int
    parameters: IndexVector
    bits: int


@dataclass(frozen=True, slots=True)
class PackedPositions:
    """`data` is what travels; `by_column` says in which order tensors were scanned."""

    data: bytes
    by_column: bool


def pack_positions(selection: Selection, layout: TensorLayout) -> list[PackedPositions]:
    """The forms of a selection that may be the shortest: the best Rice code, and those between which zstd decides."""
    indices = selection.indices
    if indices.size == layout.size:
        return [PackedPositions(bytes([ALL]), by_column=False)]
    if selection.seed is not None:
        head = bytes([SEEDED]) + write_leb128(indices.size)
        return [PackedPositions(head + struct.pack("<Q", selection.seed), by_column=False)]
    orders = [gaps_of(indices)]
    if (layout.rows > 1).any():
        orders.append(gaps_of(_scan_by_column(indices, layout)))
    groups = [choose_groups(gaps) for gaps in orders]
    fewest = min(range(len(orders)), key=lambda order: groups[order].bits)
    head = bytes([BYTES]) + write_leb128(indices.size)
    return [
        PackedPositions(_rice(orders[fewest], groups[fewest]), by_column=bool(fewest)),
        *(PackedPositions(head + write_numbers(gaps), by_column=bool(order)) for order, gaps in enumerate(orders)),
    ]


def unpack_positions(body: memoryview, layout: TensorLayout, *, by_column: bool) -> tuple[IndexVector, int]:
    """Ascending indices from the front of `body`, and the number of bytes that held them.

    Raises:
        ProtocolError: `MALFORMED`, `WRONG_SHAPE` or `INDEX_OUT_OF_RANGE`.
    """
    try:
        first = body[0]
        if first == ALL:
            return np.arange(layout.size, dtype=np.int64), 1
        count, position = read_leb128(body, 1)
        if count > layout.size:
            raise ProtocolError(Reason.WRONG_SHAPE, f"{count} entries for {layout.size} parameters")
        if first == SEEDED:
            (seed,) = struct.unpack_from("<Q", body, position)
            return random_indices(seed, count, layout.size), position + 8
    except (IndexError, struct.error) as error:
        raise ProtocolError(Reason.MALFORMED, "update ends in the head of its positions") from error
    if first == BYTES:
        gaps, used = read_numbers(body[position:], count)
        indices = _indices_from(gaps, layout.size)
    else:
        reader = BitReader(body[position:])
        indices = _indices_from(_read_rice(reader, count, first, layout.size), layout.size)
        used = reader.end_byte()
    if by_column:
        _scan_by_row(indices, layout)
    return indices, position + used


def gaps_of(indices: IndexVector) -> IndexVector:
    """Ascending indices to gaps: entries skipped since the one before, so neighbours have gap 0."""
    gaps = indices.copy()
    gaps[1:] -= indices[:-1] + 1
    return gaps


def choose_groups(gaps: IndexVector) -> RiceGroups:
    """The group size and parameters with the fewest bits for these gaps."""
    smallest = 4 << GROUP_CODES[0]
    widest = min(MAX_WIDTH, int(gaps.max()).bit_length() if gaps.size else 0)
    starts = np.arange(0, gaps.size, smallest)
    counts = np.minimum(smallest, gaps.size - starts)
    quotients = np.array([np.add.reduceat(gaps >> r, starts) for r in range(widest + 1)])
    table = quotients + counts * np.arange(1, widest + 2)[:, None]
    totals = table.sum(axis=1)
    best = RiceGroups(0, totals.argmin(keepdims=True), int(totals.min()))
    for code in GROUP_CODES:
        if starts.size <= 1:
            break
        parameters = table.argmin(axis=0)
        bits = int(table.min(axis=0).sum()) + int(_steps(parameters).sum()) + parameters.size - 1
        if bits < best.bits:
            best = RiceGroups(code, parameters, bits)
        starts = np.arange(0, table.shape[1], 2)
        table = np.add.reduceat(table, starts, axis=1)
    return best


def _rice(gaps: IndexVector, groups: RiceGroups) -> bytes:
    head = bytes([groups.code << 5 | int(groups.parameters[0])]) + write_leb128(gaps.size)
    return head + np.packbits(_code(gaps, groups)).tobytes()


def _code(gaps: IndexVector, groups: RiceGroups) -> Bits:
    widths = _per_entry(groups.parameters, groups.code, gaps.size)
    return np.concatenate([
        unary(_steps(groups.parameters)),
        fixed_width(gaps, widths),
        unary(gaps >> widths),
    ])  # fmt: skip


def _read_rice(reader: BitReader, count: int, first: int, size: int) -> NDArray[np.int32]:
    code, first_parameter = first >> 5, first & 0x1F
    changes = max(0, -(-count // (4 << code)) - 1) if code else 0
    parameters = np.empty(changes + 1, np.int32)
    parameters[0] = first_parameter
    # Groups that cost more than a bitmap are not written.
    steps = reader.unary(changes, min(size, changes * (2 * MAX_WIDTH + 1)))
    parameters[1:] = (steps >> 1) ^ -(steps & 1)
    np.cumsum(parameters, out=parameters)
    if int(parameters.min()) < 0 or int(parameters.max()) > MAX_WIDTH:
        raise ProtocolError(Reason.MALFORMED, f"Rice parameters are not all from 0 to {MAX_WIDTH}")
    widths = _per_entry(parameters, code, count)
    # No encoder gains by more than this, and it bounds what the remainders may take.
    if int((np.int32(1) << widths).sum()) > 2 * size:
        raise ProtocolError(Reason.MALFORMED, f"Rice parameters are too large for {count} of {size} entries")
    gaps = reader.fixed_width(widths)
    quotients = reader.unary(count, count + ((size - count) >> int(parameters.min())))
    if (quotients > (np.int32(size) >> widths)).any():
        raise ProtocolError(Reason.INDEX_OUT_OF_RANGE, f"a gap is not within {size} entries")
    quotients <<= widths
    gaps += quotients
    return gaps


def _indices_from(gaps: IndexVector | NDArray[np.int32], size: int) -> IndexVector:
    indices = gaps.astype(np.int64, copy=False)
    indices += 1
    np.cumsum(indices, out=indices)  # in place: with a dtype, numpy would copy the gaps once more
    indices -= 1
    if indices.size and int(indices[-1]) >= size:
        raise ProtocolError(Reason.INDEX_OUT_OF_RANGE, f"index {int(indices[-1])} among {size} parameters")
    return indices


def _per_entry(parameters: IndexVector | NDArray[np.int32], code: int, count: int) -> Widths:
    return np.repeat(parameters.astype(np.int8), 4 << code if code else count)[:count]


def _steps(parameters: IndexVector) -> IndexVector:
    """From each parameter to the next one, zigzag-coded: 0, -1, 1, -2 become 0, 1, 2, 3."""
    steps = parameters[1:] - parameters[:-1]
    return (steps << 1) ^ (steps >> 63)


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
    """Transpose the ascending `indices` within their tensors, in place and in chunks, so that little is held."""
    for begin in range(0, indices.size, _CHUNK_ENTRIES):
        chunk = indices[begin : begin + _CHUNK_ENTRIES]
        tensor = np.repeat(np.arange(layout.rows.size), layout.kept_per_tensor(chunk))
        start = layout.starts[tensor]
        outer, inner = np.divmod(chunk - start, from_width[tensor])
        chunk[:] = start + inner * to_width[tensor] + outer
