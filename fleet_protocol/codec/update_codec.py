"""The pipeline: a delta through all four stages to bytes, and back. docs/wire-format.md has the layout."""

from dataclasses import dataclass

import numpy as np

from fleet_protocol.codec.bits import BitReader
from fleet_protocol.codec.container import contain, open_container
from fleet_protocol.codec.positions import PackedPositions, pack_positions, unpack_bits, unpack_bytes
from fleet_protocol.codec.quantisation import (
    SCALE_BYTES,
    Codes,
    Quantisation,
    QuantisedValues,
    code_bytes,
    dequantise,
    is_one_bit,
    quantise,
    scale_count,
    unpack_signs,
)
from fleet_protocol.codec.selection import select
from fleet_protocol.codec.sparse import FloatVector, IndexVector, Shapes, SparseUpdate, TensorLayout
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import KIB
from fleet_protocol.update_plan import UpdatePlan

_HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """`packed` is what travels; `sent` is exactly what its receiver will decode."""

    packed: bytes
    sent: SparseUpdate


@dataclass(frozen=True, slots=True)
class Stages:
    """How an update is packed, and the bits of each part of its body. `stored_bytes` is the body as it travels."""

    quantisation: Quantisation
    by_column: bool
    compressed: bool
    position_bits: int
    scale_bits: int
    code_bits: int
    stored_bytes: int

    @property
    def body_bytes(self) -> int:
        """The body before zstd."""
        return -(-(self.position_bits + self.scale_bits + self.code_bits) // 8)


def encode_update(
    delta: FloatVector, shapes: Shapes, plan: UpdatePlan, generator: np.random.Generator, *, zstd: bool = True
) -> EncodedUpdate:
    """Compress `delta` (float32, finite, the tensors of `shapes` one after the other) as `plan` says.

    `generator` draws the seed of a random selection and rounds stochastically; other plans leave it alone. Without
    `zstd`, the body travels as it is, longer and sooner.
    """
    layout = TensorLayout.of(shapes)
    quantisation = Quantisation[plan.quantisation.upper()]
    selection = select(delta, layout, plan, generator)
    quantised = quantise(
        delta if selection.indices.size == delta.size else delta[selection.indices],
        layout.kept_per_tensor(selection.indices),
        quantisation,
        generator if plan.stochastic_rounding else None,
    )
    forms = [
        contain(
            _body(positions, quantised, quantisation),
            quantisation,
            positions_in_bits=positions.bits is not None,
            zstd=zstd,
        )
        for positions in pack_positions(selection, layout)
    ]
    return EncodedUpdate(min(forms, key=len), SparseUpdate(selection.indices, quantised.values))


def decode_update(packed: bytes, shapes: Shapes) -> SparseUpdate:
    """Read and check what `encode_update` wrote; allocates at most twice `memory_bound`.

    Raises:
        ProtocolError: `MALFORMED`, `TOO_LARGE`, `INFLATES`, `INDEX_OUT_OF_RANGE`, `NOT_FINITE` or `WRONG_SHAPE`.
    """
    return inspect_update(packed, shapes)[0]


def inspect_update(packed: bytes, shapes: Shapes) -> tuple[SparseUpdate, Stages]:
    """`decode_update`, with how the update was packed."""
    layout = TensorLayout.of(shapes)
    first, contained = open_container(packed, limit=_largest_body(layout))
    quantisation = first.quantisation
    body = memoryview(contained)
    read = _read_bits if first.positions_in_bits else _read_bytes
    front = read(body, layout, quantisation)
    indices = front.indices
    used = front.used_bytes
    kept = layout.kept_per_tensor(indices)
    scale_bytes = SCALE_BYTES * scale_count(quantisation, kept)
    coded_bytes = code_bytes(quantisation, indices.size) if front.signs is None else 0
    if len(body) - used != scale_bytes + coded_bytes:
        raise ProtocolError(
            Reason.MALFORMED,
            f"{len(body) - used} bytes of values where {indices.size} entries take {scale_bytes + coded_bytes}",
        )
    scales = body[used : used + scale_bytes]
    codes = np.frombuffer(body[used + scale_bytes :], np.uint8)
    if front.signs is not None:
        codes = front.signs
    elif is_one_bit(quantisation):
        codes = unpack_signs(codes, indices.size)
    values = dequantise(scales, codes, kept, quantisation)
    if not np.isfinite(values).all():
        raise ProtocolError(Reason.NOT_FINITE, "an update contains NaN or infinity")
    stages = Stages(
        quantisation,
        front.by_column,
        first.compressed,
        front.position_bits,
        8 * scale_bytes,
        8 * coded_bytes if front.signs is None else indices.size,
        len(packed) - 1,
    )
    return SparseUpdate(indices, values), stages


@dataclass(frozen=True, slots=True)
class _Front:
    """The part before the scales: positions, and `signs` where they share its last byte."""

    indices: IndexVector
    by_column: bool
    position_bits: int
    signs: Codes | None
    used_bytes: int


def _read_bytes(body: memoryview, layout: TensorLayout, _: Quantisation) -> _Front:
    indices, by_column, used = unpack_bytes(body, layout)
    return _Front(indices, by_column, 8 * used, None, used)


def _read_bits(body: memoryview, layout: TensorLayout, quantisation: Quantisation) -> _Front:
    reader = BitReader(body)
    indices, by_column = unpack_bits(reader, layout)
    position_bits = reader.position
    signs = reader.bits(indices.size) if is_one_bit(quantisation) else None
    return _Front(indices, by_column, position_bits, signs, reader.end_byte())


def _body(positions: PackedPositions, quantised: QuantisedValues, quantisation: Quantisation) -> bytes:
    """Positions, scales, codes; signs go on where positions in bits end."""
    if positions.bits is None:
        codes = np.packbits(quantised.codes) if is_one_bit(quantisation) else quantised.codes
        return positions.data + quantised.scales + codes.tobytes()
    if is_one_bit(quantisation):
        return np.packbits(np.concatenate([positions.bits, quantised.codes])).tobytes() + quantised.scales
    return np.packbits(positions.bits).tobytes() + quantised.scales + quantised.codes.tobytes()


def memory_bound(shapes: Shapes) -> int:
    """Bytes of the largest update of these shapes in memory, every entry with its index: int64 and float32."""
    return 64 * KIB + 12 * TensorLayout.of(shapes).size


def _largest_body(layout: TensorLayout) -> int:
    """Every value as float32, a scale per tensor, and positions: no code takes more than a byte per parameter."""
    return _HEAD_BYTES + 2 * layout.rows.size + 5 * layout.size
