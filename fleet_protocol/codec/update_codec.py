"""The pipeline: a delta through all four stages to bytes, and back. docs/wire-format.md has the layout."""

from dataclasses import dataclass

import numpy as np

from fleet_protocol.bundle import UpdatePlan
from fleet_protocol.codec.container import contain, open_container
from fleet_protocol.codec.positions import pack_positions, unpack_positions
from fleet_protocol.codec.quantisation import Quantisation, dequantise, quantise, scale_count, value_bytes
from fleet_protocol.codec.selection import select
from fleet_protocol.codec.sparse import FloatVector, Shapes, SparseUpdate, TensorLayout
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import KIB

_HEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """`packed` is what travels; `sent` is exactly what its receiver will decode."""

    packed: bytes
    sent: SparseUpdate


@dataclass(frozen=True, slots=True)
class Stages:
    """How an update is packed, and the bytes of each part of it. `stored_bytes` is the body as it travels."""

    quantisation: Quantisation
    by_column: bool
    compressed: bool
    position_bytes: int
    scale_bytes: int
    code_bytes: int
    stored_bytes: int


def encode_update(
    delta: FloatVector, shapes: Shapes, plan: UpdatePlan, generator: np.random.Generator
) -> EncodedUpdate:
    """Compress `delta` (float32, finite, the tensors of `shapes` one after the other) as `plan` says.

    `generator` draws the seed of a random selection and rounds stochastically; other plans leave it alone.
    """
    layout = TensorLayout.of(shapes)
    quantisation = Quantisation[plan.quantisation.upper()]
    selection = select(delta, layout, plan, generator)
    positions = pack_positions(selection, layout)
    quantised = quantise(
        delta[selection.indices],
        layout.kept_per_tensor(selection.indices),
        quantisation,
        generator if plan.stochastic_rounding else None,
    )
    forms = [contain(form.data + quantised.data, quantisation, by_column=form.by_column) for form in positions]
    return EncodedUpdate(min(forms, key=len), SparseUpdate(selection.indices, quantised.values))


def decode_update(packed: bytes, shapes: Shapes) -> SparseUpdate:
    """Read what `encode_update` wrote, believing nothing; allocates at most twice `memory_bound`.

    Raises:
        ProtocolError: `MALFORMED`, `TOO_LARGE`, `INFLATES`, `INDEX_OUT_OF_RANGE`, `NOT_FINITE` or `WRONG_SHAPE`.
    """
    return inspect_update(packed, shapes)[0]


def inspect_update(packed: bytes, shapes: Shapes) -> tuple[SparseUpdate, Stages]:
    """`decode_update`, with how the update was packed."""
    layout = TensorLayout.of(shapes)
    first, contained = open_container(packed, limit=_largest_body(layout))
    quantisation, body = first.quantisation, memoryview(contained)
    indices, position_bytes = unpack_positions(body, layout, by_column=first.by_column)
    kept = layout.kept_per_tensor(indices)
    rest = len(body) - position_bytes
    if rest != value_bytes(quantisation, kept):
        raise ProtocolError(
            Reason.MALFORMED,
            f"{rest} bytes of values where {indices.size} entries take {value_bytes(quantisation, kept)}",
        )
    values = dequantise(body[position_bytes:], kept, quantisation)
    if not np.isfinite(values).all():
        raise ProtocolError(Reason.NOT_FINITE, "an update holds NaN or infinity")
    scale_bytes = 2 * scale_count(quantisation, kept)
    stages = Stages(
        quantisation,
        first.by_column,
        first.compressed,
        position_bytes,
        scale_bytes,
        rest - scale_bytes,
        len(packed) - 1,
    )
    return SparseUpdate(indices, values), stages


def memory_bound(shapes: Shapes) -> int:
    """Bytes of the largest update of these shapes in memory, every entry with its index: int64 and float32."""
    return 64 * KIB + 12 * TensorLayout.of(shapes).size


def _largest_body(layout: TensorLayout) -> int:
    """Every value as float32, a scale per tensor, and positions: no code takes more than a byte per parameter."""
    return _HEAD_BYTES + 2 * layout.rows.size + 5 * layout.size
