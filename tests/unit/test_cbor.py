"""CBOR is written in the deterministic form of RFC 8949, section 4.2.1, spelled out here, whichever cbor2 there is."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import cbor
from fleet_protocol.errors import ProtocolError

NOT_A_NUMBER = b"\xf9\x7e\x00"
FLOAT_FORMS = [(b"\xf9", ">e"), (b"\xfa", ">f"), (b"\xfb", ">d")]
SIMPLE = {False: b"\xf4", True: b"\xf5", None: b"\xf6"}

integers = st.integers(-(2**64), 2**64 - 1) | st.integers(-300, 300)
edges = st.sampled_from([sign * 2**power + offset for sign in (1, -1) for power in range(64) for offset in (-1, 0)])
floats = st.floats() | st.floats(width=16) | st.floats(width=32)
plain = integers | edges | floats | st.binary(max_size=300) | st.text(max_size=30) | st.none() | st.booleans()
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.integers(0, 2**64 - 1), inner, max_size=4)
)


def head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    width = next(width for width in range(4) if number < 256 ** (1 << width))
    return bytes([major << 5 | 24 + width]) + number.to_bytes(1 << width, "big")


def shortest_float(number: float) -> bytes:
    if math.isnan(number):
        return NOT_A_NUMBER
    for first_byte, form in FLOAT_FORMS:
        try:
            packed = struct.pack(form, number)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == number:
            return first_byte + packed
    raise AssertionError(number)


def integer(number: int) -> bytes:
    return head(0, number) if number >= 0 else head(1, -1 - number)


def mapping(entries: dict) -> bytes:
    pairs = sorted((reference(key), reference(item)) for key, item in entries.items())
    return head(5, len(pairs)) + b"".join(key + item for key, item in pairs)


REFERENCE = {
    type(None): SIMPLE.__getitem__,
    bool: SIMPLE.__getitem__,
    int: integer,
    float: shortest_float,
    bytes: lambda data: head(2, len(data)) + data,
    str: lambda text: head(3, len(text.encode())) + text.encode(),
    list: lambda items: head(4, len(items)) + b"".join(map(reference, items)),
    dict: mapping,
}


def reference(value: object) -> bytes:
    return REFERENCE[type(value)](value)


@given(values)
def test_encoding_is_the_deterministic_one_and_is_read_back(value) -> None:
    encoded = cbor.encode(value)
    assert encoded == reference(value)
    assert cbor.encode(cbor.decode(encoded, "value")) == encoded


@pytest.mark.parametrize("length", [0, 23, 24, 255, 256, 65_535, 65_536, 2**24])
def test_lengths_take_as_few_bytes_as_they_can(length) -> None:
    assert cbor.encode(bytes(length)) == head(2, length) + bytes(length)


def test_every_half_float_takes_three_bytes() -> None:
    for bits in range(2**16):
        packed = bits.to_bytes(2, "big")
        number = struct.unpack(">e", packed)[0]
        assert cbor.encode(number) == (NOT_A_NUMBER if math.isnan(number) else b"\xf9" + packed)


@pytest.mark.parametrize(
    "number", [math.nan, -math.nan, math.inf, -math.inf, -0.0, 65504.0, 65520.0, 5e-324, 1e308, 0.1]
)
def test_floats_take_as_few_bytes_as_hold_them(number) -> None:
    assert cbor.encode(number) == shortest_float(number)
    assert cbor.decode(cbor.encode([number]), "numbers") is not None


def test_another_not_a_number_is_another_encoding() -> None:
    with pytest.raises(ProtocolError, match="non-canonical"):
        cbor.decode(b"\xf9\x7e\x01", "number")


@given(st.binary(max_size=70_000), st.binary(max_size=10), st.binary(max_size=10))
def test_byte_string_is_found_where_it_begins(content, before, after) -> None:
    encoded = cbor.encode(content)
    assert cbor.read_byte_string(before + encoded + after, len(before)) == (content, len(before) + len(encoded))
    assert cbor.read_byte_string(before + encoded[:-1], len(before)) is None


@pytest.mark.parametrize("data", [b"", b"\x58\x17" + bytes(23), b"\x59\x00\xff" + bytes(255), b"\x60", b"\x5f\xff"])
def test_nothing_but_a_byte_string_in_its_shortest_form_is_one(data) -> None:
    assert cbor.read_byte_string(data, 0) is None
