"""The update codec: exact where it promises to be, small, and unmoved by hostile bytes."""

import math
import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.bundle import UpdatePlan
from fleet_protocol.codec import Quantisation, decode_update, encode_update, inspect_update
from fleet_protocol.codec.selection import SELECTORS, kept_count
from fleet_protocol.codec.update_codec import EncodedUpdate, memory_bound
from fleet_protocol.errors import ProtocolError, Reason

QUANTISATIONS = [quantisation.name.lower() for quantisation in Quantisation]
FLOAT32, TERNARY, FLOAT16, INT8, INT4, SIGN = (bytes([0x40 | quantisation]) for quantisation in Quantisation)
ZSTD = b"\x51"
BY_COLUMN, ZSTD_BY_COLUMN = b"\x49", b"\x59"
ONE, NAN, INFINITY = (struct.pack("<f", value) for value in (1.0, math.nan, -math.inf))
UNIT_SCALE = ONE[2:]


def encode(delta: np.ndarray, shapes: list, keep_fraction: float, quantisation="ternary", **plan) -> EncodedUpdate:
    plan = UpdatePlan(keep_fraction, quantisation, **plan)
    return encode_update(delta.astype(np.float32), shapes, plan, np.random.default_rng(5))


@st.composite
def deltas(draw):
    """Any delta that training can produce: dense, sparse, all zero, of any magnitude, over tensors of any shape."""
    shapes = draw(st.lists(st.lists(st.integers(1, 20) | st.just(1), max_size=3), min_size=1, max_size=12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    delta = generator.standard_normal(sum(map(math.prod, shapes))) * 10.0 ** draw(st.integers(-44, 37))
    delta *= generator.random(delta.size) < draw(st.sampled_from([0.0, 0.05, 1.0]))
    return delta.astype(np.float32), shapes


plans = st.builds(
    UpdatePlan,
    keep_fraction=st.floats(1e-6, 1.0),
    quantisation=st.sampled_from(QUANTISATIONS),
    selection=st.sampled_from(sorted(SELECTORS)),
    threshold=st.sampled_from([0.0, 1.0, 1e30]),
    stochastic_rounding=st.booleans(),
)


@given(deltas(), plans)
@settings(deadline=None, max_examples=400)
def test_receiver_decodes_exactly_what_the_sender_subtracts(delta_and_shapes, plan):
    delta, shapes = delta_and_shapes
    untouched = delta.copy()
    encoded = encode_update(delta, shapes, plan, np.random.default_rng(5))
    decoded, stages = inspect_update(encoded.packed, shapes)

    assert np.array_equal(delta, untouched)
    assert np.array_equal(decoded.indices, encoded.sent.indices)
    assert np.array_equal(decoded.values.view(np.uint32), encoded.sent.values.view(np.uint32))
    assert stages.quantisation.name.lower() == plan.quantisation
    body = stages.position_bytes + stages.scale_bytes + stages.code_bytes
    assert stages.stored_bytes == len(encoded.packed) - 1 == (stages.stored_bytes if stages.compressed else body)


@given(deltas(), st.floats(1e-6, 1.0))
@settings(deadline=None)
def test_the_largest_entries_travel(delta_and_shapes, keep_fraction):
    delta, shapes = delta_and_shapes
    kept = encode(delta, shapes, keep_fraction).sent.indices
    assert kept.size == kept_count(delta.size, keep_fraction)
    assert (np.diff(kept) > 0).all()
    dropped = np.delete(np.abs(delta), kept)
    assert dropped.size == 0 or dropped.max() <= np.abs(delta[kept]).min()


@pytest.mark.parametrize("shape", [(1_000_000,), (1000, 1000)])
@pytest.mark.parametrize("keep_fraction", [0.001, 0.01, 0.05])
def test_uniform_positions_cost_little_more_than_their_entropy(shape, keep_fraction):
    delta = np.random.default_rng(1).standard_normal(1_000_000)
    _, stages = inspect_update(encode(delta, [shape], keep_fraction).packed, [shape])
    assert 8 * stages.position_bytes <= 1.02 * position_entropy(delta.size, round(keep_fraction * delta.size))


def test_positions_that_cluster_cost_less_than_uniform_ones():
    generator = np.random.default_rng(1)
    shape = (300, 700)
    by_row = generator.standard_normal(shape) * generator.lognormal(0, 2, (300, 1))
    by_column = generator.standard_normal(shape) * generator.lognormal(0, 2, (1, 700))
    for delta, scanned_by_column in ((by_row, False), (by_column, True)):
        _, stages = inspect_update(encode(delta.ravel(), [shape], 0.01).packed, [shape])
        assert stages.by_column is scanned_by_column
        assert 8 * stages.position_bytes <= 0.8 * position_entropy(delta.size, 2100)


def test_rows_that_resemble_each_other_cost_far_less():
    columns = np.random.default_rng(1).lognormal(0, 3, 500)
    delta = (np.random.default_rng(2).lognormal(0, 0.1, (400, 1)) * columns).ravel()
    packed = encode(delta, [[400, 500]], 0.02).packed
    assert packed[1:5] == zstandard.MAGIC_NUMBER.to_bytes(4, "little")
    assert 8 * len(packed) <= 0.5 * position_entropy(delta.size, 4000)


def position_entropy(size: int, count: int) -> float:
    return (math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)) / math.log(2)


@given(deltas(), st.floats(1e-6, 1.0), st.sampled_from(QUANTISATIONS))
@settings(deadline=None, max_examples=100)
def test_whatever_is_sent_never_exceeds_the_dense_weights_by_more_than_the_heads(delta_and_shapes, keep, quantisation):
    delta, shapes = delta_and_shapes
    packed = encode(delta, shapes, keep, quantisation).packed
    assert len(packed) <= 4 * delta.size + delta.size / 8 + 2 * len(shapes) + 8


def refusal_of(packed: bytes, shapes: list) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        decode_update(packed, shapes)
    return caught.value.reason


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("compressible", [False, True], ids=["plain", "zstd"])
@pytest.mark.parametrize("selection", ["top_k", "random_k"])
def test_truncated_at_any_byte_is_refused(quantisation, compressible, selection):
    shapes = [[60], [], [10, 6]]
    delta = np.ones(121) if compressible else np.random.default_rng(3).standard_normal(121)
    packed = encode(delta, shapes, 0.9, quantisation, selection=selection).packed
    assert decode_update(packed, shapes).indices.size == 109
    reasons = {refusal_of(packed[:length], shapes) for length in range(len(packed))}
    assert reasons <= {Reason.MALFORMED, Reason.NOT_FINITE, Reason.INFLATES, Reason.INDEX_OUT_OF_RANGE}


# One tensor of 8 entries; a body is Rice parameter, kept, bits of the gaps, scale, values.
@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        pytest.param(b"", Reason.MALFORMED, id="nothing"),
        pytest.param(b"\x01\x00\x01\x00", Reason.MALFORMED, id="older format"),
        pytest.param(b"\x61\x00\x00", Reason.MALFORMED, id="newer format"),
        pytest.param(b"\x46\x00\x00", Reason.MALFORMED, id="unknown quantisation"),
        pytest.param(TERNARY, Reason.MALFORMED, id="empty body"),
        pytest.param(TERNARY + b"\x00", Reason.MALFORMED, id="no count"),
        pytest.param(TERNARY + b"\xfe\x02" + bytes(7), Reason.MALFORMED, id="seed cut short"),
        pytest.param(TERNARY + b"\xfe\x09" + bytes(20), Reason.WRONG_SHAPE, id="seeded kept > size"),
        pytest.param(TERNARY + b"\x00\x09\xff\xff\xff", Reason.WRONG_SHAPE, id="kept > size"),
        pytest.param(TERNARY + b"\x00\xff\xff\xff\xff\x0f\x00", Reason.WRONG_SHAPE, id="kept far > size"),
        pytest.param(TERNARY + b"\x00" + b"\x80" * 5 + b"\x01\x00", Reason.MALFORMED, id="endless length"),
        pytest.param(TERNARY + b"\x00\x81\x00\x80" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="padded length"),
        pytest.param(TERNARY + b"\x19\x01" + bytes(8), Reason.MALFORMED, id="Rice parameter of 25"),
        pytest.param(TERNARY + b"\x02\x08" + bytes(8), Reason.MALFORMED, id="Rice parameter too large"),
        pytest.param(TERNARY + b"\x20\x08\x00", Reason.MALFORMED, id="gaps cut short"),
        pytest.param(TERNARY + b"\x00\x01\x00" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="quotient without an end"),
        pytest.param(TERNARY + b"\x03\x01\x08" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="quotient too large"),
        pytest.param(TERNARY + b"\x02\x02\xf6" + UNIT_SCALE + b"\x00", Reason.INDEX_OUT_OF_RANGE, id="second index"),
        pytest.param(TERNARY + b"\xfd\x02\x02\x80", Reason.MALFORMED, id="byte gap cut short"),
        pytest.param(TERNARY + b"\xfd\x01\x82\x00" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="padded byte gap"),
        pytest.param(TERNARY + b"\xfd\x01\x80\x80\x80\x80\x01" + bytes(3), Reason.MALFORMED, id="long byte gap"),
        pytest.param(TERNARY + b"\xfd\x02\x02\x05" + UNIT_SCALE + b"\x00", Reason.INDEX_OUT_OF_RANGE, id="byte gap"),
        pytest.param(TERNARY + b"\x00\x01\xa0" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="a one in the padding"),
        pytest.param(TERNARY + b"\x00\x01\x80" + UNIT_SCALE + b"\x01", Reason.MALFORMED, id="a one behind the signs"),
        pytest.param(TERNARY + b"\x00\x01\x80" + UNIT_SCALE + b"\x00\x00", Reason.MALFORMED, id="a byte too many"),
        pytest.param(TERNARY + b"\x00\x01\x80" + UNIT_SCALE, Reason.MALFORMED, id="no sign"),
        pytest.param(TERNARY + b"\x00\x00\x00", Reason.MALFORMED, id="a byte after nothing kept"),
        pytest.param(TERNARY + b"\x00\x01\x80" + NAN[2:] + b"\x00", Reason.NOT_FINITE, id="NaN"),
        pytest.param(TERNARY + b"\x00\x01\x80" + b"\x80\x7f" + b"\x00", Reason.NOT_FINITE, id="infinite scale"),
        pytest.param(SIGN + b"\x00\x01\x80" + b"\x80\xbf" + b"\x00", Reason.NOT_FINITE, id="negative scale"),
        pytest.param(INT8 + b"\x00\x01\x80" + UNIT_SCALE + b"\x80", Reason.MALFORMED, id="-128"),
        pytest.param(INT8 + b"\x00\x01\x80" + b"\x7f\x7f" + b"\x7f", Reason.NOT_FINITE, id="product overflows"),
        pytest.param(INT4 + b"\x00\x01\x80" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="-8"),
        pytest.param(INT4 + b"\x00\x01\x80" + UNIT_SCALE + b"\x81", Reason.MALFORMED, id="half a byte too many"),
        pytest.param(FLOAT16 + b"\x00\x01\x80" + b"\x00\x7c", Reason.NOT_FINITE, id="infinite half"),
        pytest.param(FLOAT32 + b"\x00\x01\x80" + INFINITY, Reason.NOT_FINITE, id="infinite value"),
        pytest.param(FLOAT32 + b"\x00\x01\x80" + ONE[:3], Reason.MALFORMED, id="value cut short"),
        pytest.param(FLOAT32 + b"\x00\x01\x80" + ONE + ONE, Reason.MALFORMED, id="value too many"),
        pytest.param(FLOAT32 + b"\xff" + ONE * 7, Reason.MALFORMED, id="dense value missing"),
        pytest.param(TERNARY + bytes(10_000), Reason.TOO_LARGE, id="plain body above the limit"),
        pytest.param(ZSTD, Reason.MALFORMED, id="no frame"),
        pytest.param(ZSTD + bytes(100), Reason.MALFORMED, id="not a frame"),
    ],
)  # fmt: skip
def test_hostile_body_is_refused_for_its_reason(packed, reason):
    assert refusal_of(packed, [[8]]) is reason


@pytest.mark.parametrize(
    ("packed", "shape", "indices", "values"),
    [
        # Parameter 1; gaps 2 and 3: remainders 0 and 1, quotients 01 and 01; signs + and -.
        pytest.param(TERNARY + b"\x01\x02\x54" + UNIT_SCALE + b"\x40", [8], [2, 6], [1, -1], id="ternary"),
        pytest.param(BY_COLUMN + b"\x01\x02\x54" + UNIT_SCALE + b"\x40", [2, 4], [1, 3], [1, -1], id="by column"),
        pytest.param(INT4 + b"\x01\x02\x54" + UNIT_SCALE + b"\xf1", [8], [2, 6], [7, -7], id="int4"),
        pytest.param(INT8 + b"\x01\x02\x54" + UNIT_SCALE + b"\x7f\x81", [8], [2, 6], [127, -127], id="int8"),
        pytest.param(FLOAT16 + b"\xff\x00\x3c\x00\xc0", [2], [0, 1], [1, -2], id="float16, all"),
        pytest.param(TERNARY + b"\xfd\x02\x02\x82\x01" + UNIT_SCALE + b"\x40", [200], [2, 133], [1, -1], id="bytes"),
        # Nine of ten kept, groups of eight with parameters 0 and 1: the step 1 is 001; remainder 0; nine quotients.
        pytest.param(SIGN + b"\x20\x09\x2f\xf8" + UNIT_SCALE + b"\x00\x00", [10], [*range(9)], [1] * 9, id="groups"),
    ],
)  # fmt: skip
def test_hand_written_body_means_what_the_format_says(packed, shape, indices, values):
    update = decode_update(packed, [shape])
    assert update.indices.tolist() == indices
    assert update.values.tolist() == values


def test_nothing_kept_decodes_to_nothing():
    for quantisation in (FLOAT32, TERNARY, FLOAT16, INT8, INT4, SIGN):
        assert decode_update(quantisation + b"\x00\x00", [[8], [8]]).indices.size == 0


def frame(body: bytes, *, declares_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_content_size=declares_size).compress(body)


def peak_of_decoding(packed: bytes, shapes: list) -> tuple[int, Reason | None]:
    tracemalloc.start()
    try:
        decode_update(packed, shapes)
    except ProtocolError as error:
        return tracemalloc.get_traced_memory()[1], error.reason
    else:
        return tracemalloc.get_traced_memory()[1], None
    finally:
        tracemalloc.stop()


def test_inflating_frame_is_refused_before_it_inflates():
    bomb = ZSTD + frame(bytes(200_000_000))
    assert len(bomb) < 20_000
    peak, reason = peak_of_decoding(bomb, [[1000]])
    assert reason is Reason.INFLATES
    assert peak < 2 * memory_bound([[1000]])


@pytest.mark.parametrize("shapes", [[[400_000]], [[400, 1000]]])
@pytest.mark.parametrize("selection", ["top_k", "random_k"])
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("keep_fraction", [0.01, 0.5, 0.999, 1.0])
def test_decoding_takes_at_most_twice_the_declared_bound(shapes, selection, quantisation, keep_fraction):
    delta = np.random.default_rng(1).standard_normal(400_000)
    packed = encode(delta, shapes, keep_fraction, quantisation, selection=selection).packed
    peak, reason = peak_of_decoding(packed, shapes)
    assert reason is None
    assert peak <= 2 * memory_bound(shapes)


@pytest.mark.parametrize("first", [0x00, 0x01, 0x20, 0x41, 0xFD, 0xFE, 0xFF])
@pytest.mark.parametrize("fill", [b"\x00", b"\xaa", b"\xff"])
@pytest.mark.parametrize("zstd", [ZSTD, ZSTD_BY_COLUMN])
def test_a_body_as_large_as_is_allowed_takes_at_most_twice_the_declared_bound(first, fill, zstd):
    size = 400_000
    count = bytes([0x80 | size & 0x7F, 0x80 | size >> 7 & 0x7F, size >> 14])
    packed = zstd + frame(bytes([first]) + count + fill * (5 * size))
    assert peak_of_decoding(packed, [[400, 1000]])[0] <= 2 * memory_bound([[400, 1000]])


def test_frame_of_unknown_size_is_refused():
    assert refusal_of(ZSTD + frame(bytes(10), declares_size=False), [[8]]) is Reason.INFLATES


def test_frame_that_holds_more_than_it_declares_is_refused():
    honest = frame(bytes(250))
    assert honest[4] & 0xC0 == 0
    assert honest[5] == 250
    assert refusal_of(ZSTD + honest[:5] + bytes([100]) + honest[6:], [[1000]]) is Reason.MALFORMED


@pytest.mark.parametrize("extra", [b"\x00", frame(b"more"), b"\x50\x2a\x4d\x18\x00\x00\x00\x00"])
def test_frame_followed_by_anything_is_refused(extra):
    valid = frame(b"\x00\x00")
    assert decode_update(ZSTD + valid, [[8]]).indices.size == 0
    assert refusal_of(ZSTD + valid + extra, [[8]]) is Reason.MALFORMED
