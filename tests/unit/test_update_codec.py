"""The update codec: exact where it promises to be, small, and unmoved by hostile bytes."""

import math
import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.codec import Quantisation, decode_update, encode_update, inspect_update
from fleet_protocol.codec.selection import SELECTORS, kept_count
from fleet_protocol.codec.update_codec import EncodedUpdate, memory_bound
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.update_plan import UpdatePlan

QUANTISATIONS = [quantisation.name.lower() for quantisation in Quantisation]
FLOAT32, TERNARY, FLOAT16, INT8, INT4, SIGN = (bytes([0x60 | quantisation]) for quantisation in Quantisation)
BITS_OF_FLOAT32, BITS, BITS_OF_INT8 = b"\x68", b"\x69", b"\x6b"
ZSTD = b"\x71"
ZSTD_BITS = b"\x79"
ONE, NAN, INFINITY = (struct.pack("<f", value) for value in (1.0, math.nan, -math.inf))
UNIT_SCALE = ONE[2:]


def bits(written: str) -> bytes:
    """Groups of 0 and 1, up to the next whole byte."""
    digits = written.replace(" ", "")
    return int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")


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
@settings(max_examples=400)
def test_receiver_decodes_exactly_what_the_sender_subtracts(delta_and_shapes, plan):
    delta, shapes = delta_and_shapes
    untouched = delta.copy()
    encoded = encode_update(delta, shapes, plan, np.random.default_rng(5))
    decoded, stages = inspect_update(encoded.packed, shapes)

    assert np.array_equal(delta, untouched)
    assert np.array_equal(decoded.indices, encoded.sent.indices)
    assert np.array_equal(decoded.values.view(np.uint32), encoded.sent.values.view(np.uint32))
    assert stages.quantisation.name.lower() == plan.quantisation
    assert stages.stored_bytes == len(encoded.packed) - 1
    assert stages.stored_bytes < stages.body_bytes if stages.compressed else stages.stored_bytes == stages.body_bytes


@given(deltas(), st.floats(1e-6, 1.0))
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
    assert stages.position_bits <= 1.02 * position_entropy(delta.size, round(keep_fraction * delta.size))


def test_positions_that_cluster_cost_less_than_uniform_ones():
    generator = np.random.default_rng(1)
    shape = (300, 700)
    by_row = generator.standard_normal(shape) * generator.lognormal(0, 2, (300, 1))
    by_column = generator.standard_normal(shape) * generator.lognormal(0, 2, (1, 700))
    for delta, scanned_by_column in ((by_row, False), (by_column, True)):
        _, stages = inspect_update(encode(delta.ravel(), [shape], 0.01).packed, [shape])
        assert stages.by_column is scanned_by_column
        assert stages.position_bits <= 0.8 * position_entropy(delta.size, 2100)


def test_rows_that_resemble_each_other_cost_far_less():
    columns = np.random.default_rng(1).lognormal(0, 3, 500)
    delta = (np.random.default_rng(2).lognormal(0, 0.1, (400, 1)) * columns).ravel()
    packed = encode(delta, [[400, 500]], 0.02).packed
    assert inspect_update(packed, [[400, 500]])[1].compressed
    assert 8 * len(packed) <= 0.5 * position_entropy(delta.size, 4000)


def position_entropy(size: int, count: int) -> float:
    return (math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)) / math.log(2)


@given(deltas(), st.floats(1e-6, 1.0), st.sampled_from(QUANTISATIONS))
def test_whatever_is_sent_never_exceeds_the_dense_weights_by_more_than_the_heads(delta_and_shapes, keep, quantisation):
    delta, shapes = delta_and_shapes
    packed = encode(delta, shapes, keep, quantisation).packed
    assert len(packed) <= 4 * delta.size + delta.size / 4 + 2 * len(shapes) + 8


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


# One tensor of 8 entries. Bits: by column, share or 0000 and the count in 4 bits, code, its parameter, the gaps, signs.
NONE, KEEPS_ONE, KEEPS_TWO, KEEPS_NINE = "0 0000 0000", "0 0000 0001", "0 0000 0010", "0 0000 1001"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        pytest.param(b"", Reason.MALFORMED, id="nothing"),
        pytest.param(b"\x41\x00\x01\x00", Reason.MALFORMED, id="older format"),
        pytest.param(b"\x81\x00\x00", Reason.MALFORMED, id="newer format"),
        pytest.param(b"\x66\x00\x00", Reason.MALFORMED, id="unknown quantisation"),
        pytest.param(TERNARY, Reason.MALFORMED, id="empty body"),
        pytest.param(BITS, Reason.MALFORMED, id="no bits"),
        pytest.param(TERNARY + b"\x02", Reason.MALFORMED, id="no count"),
        pytest.param(TERNARY + b"\x04\x01\x00", Reason.MALFORMED, id="unknown form of positions"),
        pytest.param(TERNARY + b"\x01\x02" + bytes(7), Reason.MALFORMED, id="seed cut short"),
        pytest.param(TERNARY + b"\x01\x09" + bytes(20), Reason.WRONG_SHAPE, id="seeded kept > size"),
        pytest.param(TERNARY + b"\x02\x09\xff\xff\xff", Reason.WRONG_SHAPE, id="kept > size"),
        pytest.param(TERNARY + b"\x02\xff\xff\xff\xff\x0f\x00", Reason.WRONG_SHAPE, id="kept far > size"),
        pytest.param(TERNARY + b"\x02" + b"\x80" * 5 + b"\x01\x00", Reason.MALFORMED, id="endless length"),
        pytest.param(TERNARY + b"\x02\x81\x00\x00" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="padded length"),
        pytest.param(BITS + bits(KEEPS_NINE) + bytes(9), Reason.WRONG_SHAPE, id="kept in bits > size"),
        pytest.param(BITS + bits("0 0000"), Reason.MALFORMED, id="count cut short"),
        pytest.param(BITS + bits(KEEPS_ONE + "0 000001 1 0") + UNIT_SCALE, Reason.MALFORMED, id="Rice parameter -1"),
        pytest.param(BITS + bits(KEEPS_ONE + "0" + "0" * 46 + "1") + bytes(9), Reason.MALFORMED, id="Rice 25"),
        pytest.param(BITS + bits(KEEPS_ONE + "0" + "0" * 200), Reason.MALFORMED, id="parameter without an end"),
        pytest.param(BITS + bits(KEEPS_ONE + "0 1 000000"), Reason.MALFORMED, id="quotient without an end"),
        pytest.param(BITS + bits(KEEPS_ONE + "0 1 000001 00 0") + UNIT_SCALE, Reason.MALFORMED, id="large quotient"),
        pytest.param(BITS + bits(KEEPS_ONE + "0 1 1"), Reason.MALFORMED, id="remainder cut short"),
        pytest.param(
            BITS + bits(KEEPS_TWO + "0 1 001 1 1 1 00") + UNIT_SCALE + UNIT_SCALE, Reason.MALFORMED, id="scale too many"
        ),
        pytest.param(
            BITS + bits(KEEPS_TWO + "0 1 001 01 1 1 00") + UNIT_SCALE, Reason.INDEX_OUT_OF_RANGE, id="second index"
        ),
        pytest.param(BITS + bits(KEEPS_ONE + "1 1111 " + "0" * 10 + "1") + bytes(9), Reason.MALFORMED, id="long gap"),
        pytest.param(
            BITS + bits(KEEPS_ONE + "1 0000 00001 1000 0") + UNIT_SCALE, Reason.INDEX_OUT_OF_RANGE, id="Exp-Golomb gap"
        ),
        pytest.param(TERNARY + b"\x02\x02\x02\x80", Reason.MALFORMED, id="byte gap cut short"),
        pytest.param(TERNARY + b"\x02\x01\x82\x00" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="padded byte gap"),
        pytest.param(TERNARY + b"\x02\x01\x80\x80\x80\x80\x01" + bytes(3), Reason.MALFORMED, id="long byte gap"),
        pytest.param(TERNARY + b"\x02\x02\x02\x05" + UNIT_SCALE + b"\x00", Reason.INDEX_OUT_OF_RANGE, id="byte gap"),
        pytest.param(BITS + bits(KEEPS_ONE + "0 1 1 00 0 001") + UNIT_SCALE, Reason.MALFORMED, id="a one at the end"),
        pytest.param(TERNARY + b"\x02\x01\x00" + UNIT_SCALE + b"\x01", Reason.MALFORMED, id="a one behind the signs"),
        pytest.param(TERNARY + b"\x02\x01\x00" + UNIT_SCALE + b"\x00\x00", Reason.MALFORMED, id="a byte too many"),
        pytest.param(TERNARY + b"\x02\x01\x00" + UNIT_SCALE, Reason.MALFORMED, id="no sign"),
        pytest.param(TERNARY + b"\x02\x00\x00", Reason.MALFORMED, id="a byte after nothing kept"),
        pytest.param(BITS + bits(NONE + "0 1") + b"\x00", Reason.MALFORMED, id="a byte after no bits"),
        pytest.param(TERNARY + b"\x02\x01\x00" + NAN[2:] + b"\x00", Reason.NOT_FINITE, id="NaN"),
        pytest.param(TERNARY + b"\x02\x01\x00" + b"\x80\x7f" + b"\x00", Reason.NOT_FINITE, id="infinite scale"),
        pytest.param(SIGN + b"\x02\x01\x00" + b"\x80\xbf" + b"\x00", Reason.NOT_FINITE, id="negative scale"),
        pytest.param(INT8 + b"\x02\x01\x00" + UNIT_SCALE + b"\x80", Reason.MALFORMED, id="-128"),
        pytest.param(INT8 + b"\x02\x01\x00" + b"\x7f\x7f" + b"\x7f", Reason.NOT_FINITE, id="product overflows"),
        pytest.param(INT4 + b"\x02\x01\x00" + UNIT_SCALE + b"\x00", Reason.MALFORMED, id="-8"),
        pytest.param(INT4 + b"\x02\x01\x00" + UNIT_SCALE + b"\x81", Reason.MALFORMED, id="half a byte too many"),
        pytest.param(FLOAT16 + b"\x02\x01\x00" + b"\x00\x7c", Reason.NOT_FINITE, id="infinite half"),
        pytest.param(FLOAT32 + b"\x02\x01\x00" + INFINITY, Reason.NOT_FINITE, id="infinite value"),
        pytest.param(FLOAT32 + b"\x02\x01\x00" + ONE[:3], Reason.MALFORMED, id="value cut short"),
        pytest.param(FLOAT32 + b"\x02\x01\x00" + ONE + ONE, Reason.MALFORMED, id="value too many"),
        pytest.param(FLOAT32 + b"\x00" + ONE * 7, Reason.MALFORMED, id="dense value missing"),
        pytest.param(TERNARY + bytes(10_000), Reason.TOO_LARGE, id="plain body above the limit"),
        pytest.param(ZSTD, Reason.MALFORMED, id="no frame"),
        pytest.param(ZSTD + b"\xff" * 100, Reason.MALFORMED, id="not a frame"),
    ],
)  # fmt: skip
def test_hostile_body_is_refused_for_its_reason(packed, reason):
    assert refusal_of(packed, [[8]]) is reason


TWO_OF_EIGHT = "0000 0010 0 1 01 01 0 1"  # 2 of 8; Rice parameter 1 as expected; quotients 1, 1; remainders 0, 1


@pytest.mark.parametrize(
    ("packed", "shape", "indices", "values"),
    [
        pytest.param(BITS + bits("0" + TWO_OF_EIGHT + "01") + UNIT_SCALE, [8], [2, 6], [1, -1], id="ternary"),
        pytest.param(BITS + bits("1" + TWO_OF_EIGHT + "01") + UNIT_SCALE, [2, 4], [1, 3], [1, -1], id="by column"),
        pytest.param(
            BITS_OF_INT8 + bits("0" + TWO_OF_EIGHT) + UNIT_SCALE + b"\x7f\x81", [8], [2, 6], [127, -127], id="int8"
        ),
        # 3 in 10,000 stands for one of 8; gap 3 is 100 behind a length of 2 in unary.
        pytest.param(BITS + bits("0 0001 1 0000 001 00 1") + UNIT_SCALE, [8], [3], [-1], id="Exp-Golomb, usual share"),
        pytest.param(INT4 + b"\x02\x02\x02\x03" + UNIT_SCALE + b"\xf1", [8], [2, 6], [7, -7], id="int4"),
        pytest.param(FLOAT16 + b"\x00\x00\x3c\x00\xc0", [2], [0, 1], [1, -2], id="float16, all"),
        pytest.param(TERNARY + b"\x02\x02\x02\x82\x01" + UNIT_SCALE + b"\x40", [200], [2, 133], [1, -1], id="bytes"),
        pytest.param(TERNARY + b"\x03\x02\x02\x03" + UNIT_SCALE + b"\x40", [2, 4], [1, 3], [1, -1], id="byte column"),
    ],
)  # fmt: skip
def test_hand_written_body_means_what_the_format_says(packed, shape, indices, values):
    update = decode_update(packed, [shape])
    assert update.indices.tolist() == indices
    assert update.values.tolist() == values


def test_without_zstd_an_update_means_the_same_and_is_never_shorter():
    delta = np.repeat(np.float32([0.5, -0.25, 0.0, 2.0]), 500)
    for plan in (UpdatePlan(1.0, quantisation="float32", selection="dense"), UpdatePlan(0.3, quantisation="int8")):
        packed = encode_update(delta, [(2000,)], plan, np.random.default_rng(1))
        plain = encode_update(delta, [(2000,)], plan, np.random.default_rng(1), zstd=False)
        assert len(plain.packed) > len(packed.packed)
        for found in (decode_update(plain.packed, [(2000,)]), plain.sent):
            assert np.array_equal(found.indices, packed.sent.indices)
            assert np.array_equal(found.values, packed.sent.values)


def test_nothing_kept_decodes_to_nothing():
    for quantisation in (FLOAT32, TERNARY, FLOAT16, INT8, INT4, SIGN):
        assert decode_update(quantisation + b"\x02\x00", [[8], [8]]).indices.size == 0
    for quantisation in (BITS_OF_FLOAT32, BITS, BITS_OF_INT8):
        assert decode_update(quantisation + bits("0 0000 00000 0 1"), [[8], [8]]).indices.size == 0


MAGIC = zstandard.MAGIC_NUMBER.to_bytes(4, "little")


def frame(body: bytes, *, declares_size: bool = True) -> bytes:
    """A zstd frame as it travels: without the magic number that all have."""
    whole = zstandard.ZstdCompressor(level=3, write_content_size=declares_size).compress(body)
    return whole.removeprefix(MAGIC)


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
    peak, reason = peak_of_decoding(bomb, [[5000]])
    assert reason is Reason.INFLATES
    assert peak < 2 * memory_bound([[5000]])


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


SIZE = 400_000
HEADS_IN_BYTES = [bytes([form]) + bytes([0x80 | SIZE & 0x7F, 0x80 | SIZE >> 7 & 0x7F, SIZE >> 14]) for form in range(4)]
HEADS_IN_BITS = [
    bits(f"{by_column} 0000 {count:019b} {code}")
    for by_column in (0, 1)
    for count in (SIZE, SIZE // 2, SIZE // 30)
    for code in ("0 1", "0 001", "1 0000", "1 0011", "1 1111")
]


@pytest.mark.parametrize(
    "head", [ZSTD + head for head in HEADS_IN_BYTES] + [ZSTD_BITS + head for head in HEADS_IN_BITS]
)
@pytest.mark.parametrize("fill", [b"\x00", b"\xaa", b"\xff", b"\x11"])
def test_a_body_as_large_as_is_allowed_takes_at_most_twice_the_declared_bound(head, fill):
    packed = head[:1] + frame(head[1:] + fill * (5 * SIZE))
    assert peak_of_decoding(packed, [[400, 1000]])[0] <= 2 * memory_bound([[400, 1000]])


def test_frame_of_unknown_size_is_refused():
    assert refusal_of(ZSTD + frame(bytes(10), declares_size=False), [[8]]) is Reason.INFLATES


def test_frame_that_holds_more_than_it_declares_is_refused():
    honest = frame(bytes(250))
    assert honest[0] & 0xC0 == 0
    assert honest[1] == 250
    assert refusal_of(ZSTD + honest[:1] + bytes([100]) + honest[2:], [[1000]]) is Reason.MALFORMED


DENSE_BODY = b"\x00" + UNIT_SCALE + bytes(125)
"""A thousand entries."""


@pytest.mark.parametrize("extra", [b"\x00", frame(bytes(20)), b"\x50\x2a\x4d\x18\x00\x00\x00\x00"])
def test_frame_followed_by_anything_is_refused(extra):
    valid = frame(DENSE_BODY)
    assert decode_update(ZSTD + valid, [[1000]]).indices.size == 1000
    assert refusal_of(ZSTD + valid + extra, [[1000]]) is Reason.MALFORMED


EMPTY_BLOCK = b"\x00\x00\x00"
"""Not the last one, raw, of no bytes (RFC 8878, section 3.1.1.2)."""


def padded(body: bytes, blocks: int) -> bytes:
    """A frame of `body` with so many empty blocks before the others."""
    honest = frame(body)
    header = 2 if len(body) < 256 else 3
    assert zstandard.get_frame_parameters(MAGIC + honest).content_size == len(body)
    made = honest[:header] + blocks * EMPTY_BLOCK + honest[header:]
    assert zstandard.ZstdDecompressor().decompress(MAGIC + made) == body
    return made


@pytest.mark.parametrize("blocks", [40, 100, 1_000, 1_000_000])
def test_padded_update_is_refused_for_its_size_before_it_is_decompressed(blocks):
    """Four megabytes of empty blocks were an update of a thousand parameters, and were journalled whole."""
    reason = refusal_of(ZSTD + padded(DENSE_BODY, blocks), [[1000]])
    assert reason is (Reason.MALFORMED if 3 * blocks < 5_000 else Reason.TOO_LARGE)


def test_frame_that_is_not_shorter_than_its_content_is_refused():
    """Whoever writes an update stores the content then."""
    assert refusal_of(ZSTD + frame(b"\x02\x00"), [[8]]) is Reason.MALFORMED


def test_nothing_that_decodes_is_longer_than_its_tasks_parameters_allow():
    largest = 64 + 2 * 2 + 5 * 4_810
    assert refusal_of(b"\x61" + bytes(largest + 1), [[4_800], [10]]) is Reason.TOO_LARGE
    assert refusal_of(ZSTD + bytes(largest + 1), [[4_800], [10]]) is Reason.TOO_LARGE
