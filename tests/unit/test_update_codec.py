"""The update codec: exact where it promises to be, small, and unmoved by hostile bytes."""

import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.training.job import TrainingJob
from edge_agent.training.worker import gather_residual
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec.index_coding import best_rice_parameter, gaps_of, write_gaps
from fleet_protocol.codec.update_codec import Quantisation, decode_update, encode_update
from fleet_protocol.errors import ProtocolError, Reason

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
PLAIN, ZSTD = b"\x01\x00", b"\x01\x01"
FLOAT32, TERNARY = b"\x00", b"\x01"
ONE, NAN, INFINITY = (struct.pack("<f", value) for value in (1.0, math.nan, -math.inf))


@st.composite
def deltas(draw):
    """Any delta that training can produce: dense, sparse, all zero, of any magnitude, over tensors of any size."""
    sizes = draw(st.lists(st.integers(1, 400) | st.just(1), min_size=1, max_size=12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    delta = generator.standard_normal(sum(sizes)) * 10.0 ** draw(st.integers(-44, 37))
    delta *= generator.random(delta.size) < draw(st.sampled_from([0.0, 0.05, 1.0]))
    return delta.astype(np.float32), sizes


@given(deltas(), st.floats(1e-6, 1.0), st.sampled_from(Quantisation))
@settings(deadline=None)
def test_receiver_decodes_exactly_the_quantised_selection(delta_and_sizes, keep_fraction, quantisation):
    delta, sizes = delta_and_sizes
    untouched = delta.copy()
    encoded = encode_update(delta, sizes, keep_fraction=keep_fraction, quantisation=quantisation)
    decoded = decode_update(encoded.packed, sizes)

    assert np.array_equal(delta, untouched)
    assert np.array_equal(decoded.indices, encoded.sent.indices)
    assert np.array_equal(decoded.values.view(np.uint32), encoded.sent.values.view(np.uint32))

    kept = decoded.indices
    assert kept.size == max(1, round(keep_fraction * delta.size))
    assert (np.diff(kept) > 0).all()
    dropped = np.delete(np.abs(delta), kept)
    assert dropped.size == 0 or dropped.max() <= np.abs(delta[kept]).min()
    if quantisation is Quantisation.FLOAT32:
        assert np.array_equal(decoded.values, delta[kept])
        return
    for start, end in zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
        of_tensor = (kept >= start) & (kept < end)
        original = delta[kept[of_tensor]]
        if original.size:
            magnitude = np.float32(np.abs(original.astype(np.float64)).mean())
            assert np.array_equal(decoded.values[of_tensor], np.copysign(magnitude, original))


@pytest.mark.parametrize("quantisation", Quantisation)
def test_what_was_learned_is_sent_or_kept_over_hundreds_of_rounds_with_rejections(quantisation):
    generator = np.random.default_rng(7)
    count = DIGITS.parameter_count
    learned, accepted = np.zeros(count), np.zeros(count)
    residual, returned = b"", []
    for _ in range(300):
        delta = (generator.standard_normal(count) * generator.lognormal(-4.0, 2.0)).astype(np.float32)
        learned += delta
        total = delta + gather_residual(job(residual, returned))
        encoded = encode_update(total, DIGITS.tensor_sizes, keep_fraction=0.02, quantisation=quantisation)
        encoded.sent.add_to(total, scale=-1.0)
        residual, returned = total.tobytes(), []
        if generator.random() < 0.3:
            returned = [encoded.packed]
        else:
            update = decode_update(encoded.packed, DIGITS.tensor_sizes)
            accepted[update.indices] += update.values
    difference = accepted + gather_residual(job(residual, returned)) - learned
    assert np.linalg.norm(difference) <= 1e-6 * np.linalg.norm(learned)


def job(residual: bytes, returned: list[bytes]) -> TrainingJob:
    return TrainingJob(DIGITS, "", "", "", residual, returned, 0, 1, 0, 512)


@pytest.mark.parametrize("seed", range(3))
def test_uniform_positions_cost_little_more_than_their_entropy(seed):
    size, count = 400_000, 4_000
    chosen = np.random.default_rng(seed).choice(size, count, replace=False)
    gaps = gaps_of(np.sort(chosen))
    bits = write_gaps(gaps, best_rice_parameter(gaps)).size
    entropy = (math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)) / math.log(2)
    assert bits <= 1.03 * entropy


@given(deltas(), st.floats(1e-6, 1.0), st.sampled_from(Quantisation))
@settings(deadline=None, max_examples=30)
def test_whatever_is_sent_never_exceeds_the_dense_weights_by_more_than_the_heads(delta_and_sizes, keep, quantisation):
    delta, sizes = delta_and_sizes
    packed = encode_update(delta, sizes, keep_fraction=keep, quantisation=quantisation).packed
    assert len(packed) <= 4 * delta.size + delta.size / 4 + 10 * len(sizes) + 16


def refusal_of(packed: bytes, sizes: list[int]) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        decode_update(packed, sizes)
    return caught.value.reason


@pytest.mark.parametrize("quantisation", Quantisation)
@pytest.mark.parametrize("compressible", [False, True], ids=["plain", "zstd"])
def test_truncated_at_any_byte_is_refused(quantisation, compressible):
    sizes = [60, 1, 60]
    delta = np.random.default_rng(3).standard_normal(121).astype(np.float32)
    delta = np.ones(121, np.float32) if compressible else delta
    packed = encode_update(delta, sizes, keep_fraction=0.9, quantisation=quantisation).packed
    assert packed.startswith(ZSTD) or not compressible
    reasons = {refusal_of(packed[:length], sizes) for length in range(len(packed))}
    assert reasons <= {Reason.MALFORMED, Reason.NOT_FINITE, Reason.INFLATES}


# One tensor of 8 entries unless said otherwise; bits are written first to last, padded with zeros.
@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        pytest.param(b"", Reason.MALFORMED, id="nothing"),
        pytest.param(b"\x01", Reason.MALFORMED, id="format alone"),
        pytest.param(b"\x02\x00\x01\x00", Reason.MALFORMED, id="newer format"),
        pytest.param(b"\x01\x02\x01\x00", Reason.MALFORMED, id="unknown container"),
        pytest.param(PLAIN, Reason.MALFORMED, id="empty body"),
        pytest.param(PLAIN + b"\x02\x00", Reason.MALFORMED, id="unknown quantisation"),
        pytest.param(PLAIN + TERNARY, Reason.MALFORMED, id="no head"),
        pytest.param(PLAIN + TERNARY + b"\x09\x00" + ONE + b"\xff\xff\xff", Reason.WRONG_SHAPE, id="kept > size"),
        pytest.param(PLAIN + TERNARY + b"\xff\xff\xff\xff\x0f\x00", Reason.WRONG_SHAPE, id="kept far > size"),
        pytest.param(PLAIN + TERNARY + b"\x80" * 5 + b"\x01\x00", Reason.MALFORMED, id="endless length"),
        pytest.param(PLAIN + TERNARY + b"\x01\x19" + ONE + bytes(8), Reason.MALFORMED, id="Rice parameter of 25"),
        pytest.param(PLAIN + TERNARY + b"\x08\x02" + ONE + bytes(8), Reason.MALFORMED, id="Rice parameter too large"),
        pytest.param(PLAIN + TERNARY + b"\x01\x00" + ONE + b"\x00", Reason.MALFORMED, id="quotient without an end"),
        pytest.param(PLAIN + TERNARY + b"\x01\x03" + ONE + b"\x41", Reason.INDEX_OUT_OF_RANGE, id="index 8 of 8"),
        pytest.param(PLAIN + TERNARY + b"\x02\x01" + ONE + b"\x15", Reason.INDEX_OUT_OF_RANGE, id="second index"),
        pytest.param(PLAIN + TERNARY + b"\x01\x00" + ONE + b"\xa0", Reason.MALFORMED, id="a one in the padding"),
        pytest.param(PLAIN + TERNARY + b"\x01\x00" + ONE + b"\x80\x00", Reason.MALFORMED, id="a byte too many"),
        pytest.param(PLAIN + TERNARY + b"\x00\x00", Reason.MALFORMED, id="a byte after nothing kept"),
        pytest.param(PLAIN + TERNARY + b"\x01\x00" + NAN + b"\x80", Reason.NOT_FINITE, id="NaN"),
        pytest.param(PLAIN + TERNARY + b"\x01\x00" + INFINITY + b"\x80", Reason.NOT_FINITE, id="inf"),
        pytest.param(PLAIN + FLOAT32 + b"\x01\x00\x80" + NAN, Reason.NOT_FINITE, id="NaN value"),
        pytest.param(PLAIN + FLOAT32 + b"\x01\x00\x80" + ONE[:3], Reason.MALFORMED, id="value cut short"),
        pytest.param(PLAIN + FLOAT32 + b"\x01\x00\x80" + ONE + ONE, Reason.MALFORMED, id="value too many"),
        pytest.param(PLAIN + bytes(10_000), Reason.TOO_LARGE, id="plain body above the limit"),
        pytest.param(ZSTD, Reason.MALFORMED, id="no frame"),
        pytest.param(ZSTD + bytes(100), Reason.MALFORMED, id="not a frame"),
    ],
)  # fmt: skip
def test_hostile_body_is_refused_for_its_reason(packed, reason):
    assert refusal_of(packed, [8]) is reason


def test_hand_written_body_means_what_the_format_says():
    # 2 of 8 kept, Rice parameter 1, magnitude 1; gaps 2 and 3: quotients 01 01, remainders 0 1; signs + and -.
    bits = 0b01_01_0_1_0_1
    update = decode_update(PLAIN + TERNARY + b"\x02\x01" + ONE + bytes([bits]), [8])
    assert update.indices.tolist() == [2, 6]
    assert update.values.tolist() == [1.0, -1.0]


def test_nothing_kept_in_any_tensor_decodes_to_nothing():
    for quantisation in (FLOAT32, TERNARY):
        assert decode_update(PLAIN + quantisation + b"\x00\x00", [8, 8]).indices.size == 0


def frame(body: bytes, *, declares_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_content_size=declares_size).compress(body)


def test_inflating_frame_is_refused_before_it_inflates():
    bomb = ZSTD + frame(bytes(200_000_000))
    assert len(bomb) < 20_000
    tracemalloc.start()
    assert refusal_of(bomb, [1000]) is Reason.INFLATES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_frame_of_unknown_size_is_refused():
    assert refusal_of(ZSTD + frame(PLAIN + bytes(10), declares_size=False), [8]) is Reason.INFLATES


def test_frame_that_holds_more_than_it_declares_is_refused():
    honest = frame(bytes(250))
    assert honest[4] & 0xC0 == 0
    assert honest[5] == 250
    assert refusal_of(ZSTD + honest[:5] + bytes([100]) + honest[6:], [1000]) is Reason.MALFORMED


@pytest.mark.parametrize("extra", [b"\x00", frame(b"more"), b"\x50\x2a\x4d\x18\x00\x00\x00\x00"])
def test_frame_followed_by_anything_is_refused(extra):
    valid = frame(TERNARY + b"\x00")
    assert decode_update(ZSTD + valid, [8]).indices.size == 0
    assert refusal_of(ZSTD + valid + extra, [8]) is Reason.MALFORMED


def test_body_longer_than_its_heads_allow_is_refused_before_it_is_unpacked():
    size = 2_000_000
    declared = 8 * size
    packed = ZSTD + frame(TERNARY + b"\x00" + bytes(declared - 2))
    tracemalloc.start()
    assert refusal_of(packed, [size]) is Reason.MALFORMED
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * declared
