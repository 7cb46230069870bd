"""Activations and gradients as bytes: how near they come back, what is chosen of them, and hostile bytes refused."""

import math

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleet_protocol.codec.activations import pack_activations, pack_gradient, unpack_rows
from fleet_protocol.codec.row_entries import RANDOM_SHARE, choose, pack_places, place_bytes, unpack_places
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_STEP_VALUES
from fleet_protocol.split_plan import WireFormat

WIRES: tuple[WireFormat, ...] = ("float32", "float16", "int8", "int4")
LEVELS = {"int8": 127, "int4": 7}
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
finite = st.floats(-(2.0**60), 2.0**60, width=32)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    rows, shape = draw(st.integers(1, 6)), draw(shapes)
    return draw(hnp.arrays(np.float32, (rows, *shape), elements=finite))


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


def drawn(rows: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((rows, *shape)).astype(np.float32)


@given(arrays())
def test_float32_comes_back_bit_for_bit(values):
    back = unpack_rows(pack_activations(values, "float32"), "float32", len(values), values.shape[1:])
    assert back.dtype == np.float32
    assert back.tobytes() == values.tobytes()


@given(arrays())
def test_float16_comes_back_as_the_nearest_half_or_the_largest(values):
    back = unpack_rows(pack_activations(values, "float16"), "float16", len(values), values.shape[1:])
    assert np.array_equal(back, np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32))


@given(arrays(), st.sampled_from(["int8", "int4"]), st.booleans())
def test_integers_are_within_half_a_level_of_their_channel(values, wire, non_negative):
    values = np.abs(values) if non_negative else values
    back = unpack_rows(pack_activations(values, wire), wire, len(values), values.shape[1:])
    highest = LEVELS[wire] * 2 + 1 if (values >= 0).all() else LEVELS[wire]
    others = tuple(axis for axis in range(values.ndim) if axis != 1)
    largest = np.abs(values).max(axis=others, keepdims=True).astype(np.float64)
    level = largest / highest * (1 + 2**-7)  # a bfloat16 scale is rounded up
    lost = (largest / highest < np.finfo(np.float32).tiny) & (back == 0)
    assert (lost | (np.abs(back - values.astype(np.float64)) <= level / 2 * (1 + 1e-5))).all()


def test_a_channel_whose_level_would_be_below_float32s_least_normal_number_is_all_zeros():
    values = np.array([[3.5680624e-37]], np.float32)
    assert unpack_rows(pack_activations(values, "int8"), "int8", 1, (1,)).tolist() == [[0]]


@given(arrays(), st.sampled_from(WIRES), st.sampled_from(["top_k", "random_top_k"]), st.floats(0.01, 1))
def test_of_each_row_as_many_entries_come_back_as_are_kept(values, wire, selection, keep):
    rows, size = len(values), values[0].size
    back = unpack_rows(pack_gradient(values, wire, selection, keep, generator()), wire, rows, values.shape[1:])
    kept = min(size, max(1, round(keep * size)))
    assert back.shape == values.shape
    assert (np.count_nonzero(back.reshape(rows, -1), axis=1) <= kept).all()
    if wire == "float32":
        places = back != 0
        assert np.array_equal(back[places], values[places])


def test_top_k_keeps_the_largest_of_each_row():
    values = drawn(16, 40)
    back = unpack_rows(pack_gradient(values, "float32", "top_k", 0.25, generator()), "float32", 16, (40,))
    for row, kept in zip(values, back, strict=True):
        assert set(np.flatnonzero(kept)) == set(np.argsort(np.abs(row))[-10:])


def test_random_top_k_takes_a_tenth_from_outside_of_the_largest():
    values = drawn(400, 100)
    places = choose(values, "random_top_k", 0.2, generator())
    assert all(len(set(row)) == 20 for row in places.tolist())
    largest = np.argsort(np.abs(values), axis=1)[:, -20:]
    outside = np.mean([len(set(row) - set(top)) for row, top in zip(places.tolist(), largest.tolist(), strict=True)])
    assert abs(outside / 20 - RANDOM_SHARE) < 0.01
    again = choose(values, "random_top_k", 0.2, generator())
    assert np.array_equal(places, again)


@given(st.integers(1, 5), st.integers(2, 300), st.data())
def test_places_come_back(rows, columns, data):
    count = data.draw(st.integers(1, columns - 1))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    places = np.sort(np.array([random.choice(columns, count, replace=False) for _ in range(rows)]), axis=1)
    packed = pack_places(places, columns)
    assert len(packed) == place_bytes(rows, columns, count)
    assert np.array_equal(unpack_places(memoryview(packed), rows, columns, count), places)


def test_int8_takes_a_quarter_of_float32():
    values = drawn(32, 8, 14, 14)
    assert len(pack_activations(values, "int8")) <= 0.26 * values.nbytes
    assert len(pack_activations(np.maximum(values, 0), "int8")) <= 0.17 * values.nbytes


def test_channels_of_unlike_size_each_have_their_scale():
    values = drawn(4, 3, 5) * np.array([1e-6, 1, 1e6], np.float32)[:, None]
    back = unpack_rows(pack_activations(values, "int8"), "int8", 4, (3, 5))
    np.testing.assert_allclose(
        np.linalg.norm(back - values, axis=(0, 2)) / np.linalg.norm(values, axis=(0, 2)), 0, atol=0.01
    )


def refused(packed: bytes, wire: WireFormat = "int8", rows: int = 2, shape: tuple[int, ...] = (3, 2)) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        unpack_rows(packed, wire, rows, shape)
    return caught.value.reason


def frame(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=False).compress(content)[4:]


WHOLE = pack_activations(drawn(2, 3, 2), "int8")
CHOSEN = pack_gradient(drawn(2, 3, 2), "int8", "top_k", 0.5, generator())


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"\x00" + WHOLE[1:], Reason.MALFORMED),  # another format
        (bytes([WHOLE[0] ^ 1]) + WHOLE[1:], Reason.MALFORMED),  # another wire format than was announced
        (WHOLE[:-1], Reason.WRONG_SHAPE),
        (WHOLE + b"\x00", Reason.TOO_LARGE),
        (WHOLE[:1] + b"\x80\x7f" + WHOLE[3:], Reason.NOT_FINITE),  # a scale that is infinite
        (WHOLE[:2] + b"\xbf" + WHOLE[3:], Reason.NOT_FINITE),  # a negative scale
        (WHOLE[:7] + b"\x80" + WHOLE[8:], Reason.MALFORMED),  # level -128
        (WHOLE[:1] + b"\x7f\x7f" + WHOLE[3:], Reason.NOT_FINITE),  # a product that overflows
        (CHOSEN[:1] + bytes(4) + CHOSEN[5:], Reason.MALFORMED),  # no entries
        (CHOSEN[:1] + b"\x06\0\0\0" + CHOSEN[5:], Reason.MALFORMED),  # all of them
        (CHOSEN[:1] + b"\xff\xff\xff\xff" + CHOSEN[5:], Reason.MALFORMED),
        (CHOSEN[:5] + b"\xff" + CHOSEN[6:], Reason.MALFORMED),  # a row with more entries than it says
        (bytes([WHOLE[0] | 0x10]) + frame(bytes(100)), Reason.INFLATES),
        (bytes([WHOLE[0] | 0x10]) + b"\xff" * 9, Reason.MALFORMED),
    ],
)
def test_what_no_sender_writes_is_refused(packed, reason):
    assert refused(packed) is reason


def test_nan_is_refused():
    values = drawn(2, 3, 2)
    values[1, 2, 0] = math.nan
    assert refused(pack_activations(values, "float32"), "float32") is Reason.NOT_FINITE
    assert refused(pack_activations(values, "float16"), "float16") is Reason.NOT_FINITE


def test_more_values_than_the_limit_are_refused_before_anything_is_read():
    assert refused(b"", rows=2, shape=(MAX_STEP_VALUES,)) is Reason.TOO_LARGE


def test_a_place_outside_of_its_row_is_refused():
    packed = pack_gradient(drawn(1, 100), "float32", "top_k", 0.01, generator())
    assert refused(packed[:5] + b"\xfe" + packed[6:], "float32", 1, (100,)) is Reason.INDEX_OUT_OF_RANGE


@given(st.binary(max_size=60), st.sampled_from(WIRES))
@settings(max_examples=200)
def test_any_bytes_are_values_or_a_refusal(data, wire):
    try:
        values = unpack_rows(data, wire, 2, (3, 2))
    except ProtocolError:
        return
    assert values.shape == (2, 3, 2)
    assert np.isfinite(values).all()
