"""Packed versions: the receiver has the very same weights, whatever it had before; hostile bytes lead nowhere."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fleet_protocol.codec import Grid, apply_difference, encode_difference
from fleet_protocol.codec.difference import read_head
from fleet_protocol.codec.grid import MAX_EXPONENT, MIN_EXPONENT, VECTOR_BITS
from fleet_protocol.errors import ProtocolError, Reason

SHAPES = ((6, 8), (6,), (), (3, 2, 2))
SIZE = 48 + 6 + 1 + 12
finite = st.floats(-(2.0**100), 2.0**100, width=32)
vectors = hnp.arrays(np.float32, SIZE, elements=finite)
grids = st.builds(
    lambda exponents: Grid(np.array(exponents, np.int8)),
    st.lists(st.integers(MIN_EXPONENT, MAX_EXPONENT), min_size=len(SHAPES), max_size=len(SHAPES)),
)


def drawn(seed: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, SIZE).astype(np.float32)


@given(st.none() | vectors, vectors, st.none() | grids)
def test_receiver_has_the_same_bits_whatever_the_weights(base, target, grid):
    packed = encode_difference(base, target, SHAPES, grid)
    assert apply_difference(base, packed, SHAPES).tobytes() == target.tobytes()


@given(st.none() | vectors, vectors, grids)
def test_what_is_published_on_a_grid_comes_back_and_stays_there(base, true_weights, grid):
    published = grid.rounded(true_weights, SHAPES)
    assert grid.rounded(published, SHAPES).tobytes() == published.tobytes()
    packed = encode_difference(base, published, SHAPES, grid)
    assert apply_difference(base, packed, SHAPES).tobytes() == published.tobytes()


@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_published_weights_are_within_half_a_step_of_the_true_ones(seed, bits):
    first, true_weights = drawn(seed), drawn(seed + 1, scale=1.0)
    grid = Grid.below(first, SHAPES, bits)
    steps = grid.steps(np.array([48, 6, 1, 12]))
    assert (np.abs(grid.rounded(true_weights, SHAPES) - true_weights.astype(np.float64)) <= steps / 2).all()


def test_steps_follow_the_magnitude_of_each_tensor_and_are_finer_for_vectors():
    first = np.concatenate([np.full(48, 0.3), np.full(6, 0.3), [0.0], np.full(12, 5.0)]).astype(np.float32)
    exponents = Grid.below(first, SHAPES, bits=2).exponents.tolist()
    overall = int(np.floor(np.log2(np.sqrt(np.mean(first.astype(np.float64) ** 2)))))
    assert exponents == [-2 - 2, -2 - 2 - VECTOR_BITS, overall - 2 - VECTOR_BITS, 2 - 2]
    assert (np.abs(Grid.below(np.zeros(SIZE, np.float32), SHAPES, bits=2).exponents) <= -MIN_EXPONENT).all()


def test_weights_that_outgrew_the_grid_are_published_as_they_are():
    grid, weights = Grid.below(drawn(1), SHAPES, bits=2), drawn(2, scale=1e9)
    assert grid.rounded(weights, SHAPES).tobytes() == weights.tobytes()
    assert not read_head(encode_difference(None, weights, SHAPES, grid)).on_grid


def test_any_number_of_versions_costs_one_difference_and_never_much_more_than_the_whole():
    shapes = ((64, 64),)
    versions = [np.zeros(4096, np.float32)]
    generator = np.random.default_rng(1)
    first = generator.normal(0, 0.1, 4096).astype(np.float32)
    for _ in range(64):
        versions.append(versions[-1] + generator.normal(0, 0.02, 4096).astype(np.float32))
    grid = Grid.below(first, shapes, bits=2)
    published = [grid.rounded(first + version, shapes) for version in versions]
    sizes = [len(encode_difference(published[-1 - apart], published[-1], shapes, grid)) for apart in (1, 4, 16, 64)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 4 * 4096 / 8
    assert sizes[3] < 3 * sizes[0]


def test_sparse_change_of_exact_weights_costs_its_entries():
    base = np.random.default_rng(1).normal(0, 1, 20_000).astype(np.float32)
    target = base.copy()
    target[::100] += np.float32(0.01)
    assert len(encode_difference(base, target, ((20_000,),), None)) < 6 * 200


def refusal(packed: bytes, base: np.ndarray | None = None) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        apply_difference(base, packed, SHAPES)
    return caught.value.reason


def plane(content: bytes) -> bytes:
    return bytes([len(content)]) + content


def test_hostile_bytes_are_refused_with_their_reason():
    base = drawn(1)
    good = encode_difference(base, drawn(2), SHAPES, None)
    assert refusal(good) is Reason.UNKNOWN_VERSION
    assert {refusal(good[:length], base) for length in range(len(good))} == {Reason.MALFORMED}
    assert refusal(good + b"\x00", base) is Reason.MALFORMED
    assert refusal(b"\x35" + plane(bytes(SIZE)) * 5) is Reason.MALFORMED
    assert refusal(b"\x31" + plane(zstandard.compress(bytes(SIZE + 1)))) is Reason.INFLATES
    assert refusal(b"\x31" + plane(zstandard.compress(bytes(SIZE - 1)))) is Reason.MALFORMED
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00more"
    assert refusal(b"\x31" + plane(skippable + zstandard.compress(bytes(SIZE)))) is Reason.MALFORMED
    empty_blocks = zstandard.compress(bytes(SIZE)) + bytes(3 * SIZE)
    assert refusal(b"\x31" + plane(empty_blocks)) is Reason.MALFORMED
    infinity = plane(bytes(SIZE)) * 2 + plane(bytes(SIZE)) + plane(b"\xff" * SIZE)
    assert refusal(b"\x34" + infinity) is Reason.NOT_FINITE
    assert refusal(b"\x39" + bytes([0, 0, 0, MAX_EXPONENT + 1]) + plane(bytes(SIZE))) is Reason.OUT_OF_BOUNDS
    assert refusal(b"\x39" + bytes([0, 0])) is Reason.MALFORMED
