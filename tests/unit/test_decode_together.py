"""Decoding many updates together gives, for each, what decoding it alone gives, or leaves it to that."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.codec import SparseUpdate, decode_together, decode_update, encode_update
from fleet_protocol.codec.selection import SELECTORS
from fleet_protocol.codec.together import MAX_PACKED_BYTES
from fleet_protocol.errors import ProtocolError
from fleet_protocol.update_plan import UpdatePlan

SHAPES = [[20, 30], [7], [], [30, 4]]
SIZE = sum(map(math.prod, SHAPES))
TERNARY, SIGN = 0x69, 0x6D
USUAL_FORMS = (TERNARY, SIGN)
"""First bytes: format 3, positions in bits, not compressed."""


def decoded_alone(packed: bytes, shapes: Sequence[Sequence[int]]) -> SparseUpdate | None:
    try:
        return decode_update(packed, shapes)
    except ProtocolError:
        return None


def check(packed: list[bytes], shapes: Sequence[Sequence[int]]) -> list[bool]:
    """Compare both ways; returns which were decoded together."""
    together = decode_together(packed, shapes)
    assert len(together) == len(packed)
    for data, found in zip(packed, together, strict=True):
        alone = decoded_alone(data, shapes)
        if found is None:
            leaves_it = alone is None or not alone.indices.size or data[0] not in USUAL_FORMS
            assert leaves_it or len(data) > MAX_PACKED_BYTES, data.hex()
        else:
            assert alone is not None, data.hex()
            assert found.indices.dtype == np.int64
            assert np.array_equal(found.indices, alone.indices), data.hex()
            assert np.array_equal(found.values.view(np.uint32), alone.values.view(np.uint32)), data.hex()
    return [found is not None for found in together]


@st.composite
def batches(draw):
    """Updates of one task by devices that follow different plans, with rows and columns that change most."""
    shapes = draw(st.just(SHAPES) | st.lists(st.lists(st.integers(1, 20), max_size=3), min_size=1, max_size=5))
    size = sum(map(math.prod, shapes))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    packed = []
    for _ in range(draw(st.integers(1, 12))):
        plan = UpdatePlan(
            draw(st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.9])),
            draw(st.sampled_from(["ternary", "ternary", "sign", "int8"])),
            draw(st.sampled_from(sorted(SELECTORS))),
            threshold=draw(st.sampled_from([0.5, 2.0])),
        )
        uneven = np.exp(
            draw(st.sampled_from([0.0, 2.0])) * np.repeat(generator.standard_normal(size // 5 + 1), 5)[:size]
        )
        delta = (generator.standard_normal(size) * uneven).astype(np.float32)
        packed.append(encode_update(delta, shapes, plan, generator).packed)
    return packed, shapes


@given(batches(), st.data())
@settings(max_examples=300)
def test_together_is_as_alone_also_for_damaged_updates(batch, data) -> None:
    packed, shapes = batch
    damaged = []
    for update in packed:
        changed = bytearray(update)
        for place in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=3)):
            changed[place] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.integers(-2, 2))
        damaged.append(bytes(changed[:cut]) if cut < 0 else bytes(changed) + bytes(cut))
    check(packed + damaged, shapes)


@given(st.lists(st.tuples(st.sampled_from(USUAL_FORMS), st.binary(max_size=120)), max_size=40))
@settings(max_examples=1000)
def test_together_is_as_alone_for_any_bytes(bodies) -> None:
    check([bytes([first]) + body for first, body in bodies], SHAPES)


@given(st.lists(st.binary(max_size=60), max_size=10), st.integers(1, 2**31))
def test_together_is_as_alone_for_any_size_of_the_model(bodies, size) -> None:
    packed = [bytes([TERNARY]) + body for body in bodies]
    together = decode_together(packed, [[size]])
    for data, found in zip(packed, together, strict=True):
        if found is not None:
            alone = decode_update(data, [[size]])
            assert np.array_equal(found.indices, alone.indices)


@pytest.mark.parametrize("quantisation", ["ternary", "sign"])
@pytest.mark.parametrize("unevenness", [0.0, 2.5])
def test_a_fleets_usual_updates_are_decoded_together(quantisation, unevenness) -> None:
    shapes, generator = [[64, 784], [64], [10, 64], [10]], np.random.default_rng(1)
    rows = np.exp(unevenness * generator.standard_normal((200, 64, 1)))
    deltas = generator.standard_normal((200, 50_890)).astype(np.float32)
    deltas[:, :50_176] *= np.broadcast_to(rows, (200, 64, 784)).reshape(200, -1)
    packed = [encode_update(delta, shapes, UpdatePlan(0.01, quantisation), generator).packed for delta in deltas]
    usual = [update[0] in USUAL_FORMS for update in packed]
    assert check(packed, shapes) == usual
    assert sum(usual) > 100


def test_one_long_update_is_left_alone() -> None:
    shapes, generator = [[200_000]], np.random.default_rng(1)
    deltas = generator.standard_normal((2, 200_000)).astype(np.float32)
    long, short = (
        encode_update(delta, shapes, UpdatePlan(fraction), generator).packed
        for delta, fraction in zip(deltas, (0.2, 0.001), strict=True)
    )
    assert check([long, short], shapes) == [False, True]


def test_nothing_gives_nothing() -> None:
    assert decode_together([], SHAPES) == []
    assert decode_together([b"", b"\x69", b"\x00"], SHAPES) == [None] * 3
