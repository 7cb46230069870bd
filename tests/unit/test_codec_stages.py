"""The stages of the update codec, each for itself."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.codec.byte_gaps import read_numbers, write_numbers
from fleet_protocol.codec.leb128 import write_leb128
from fleet_protocol.codec.positions import EXP_GOLOMB, RICE, choose_code, expected_parameter, gaps_of
from fleet_protocol.codec.quantisation import Quantisation, quantise
from fleet_protocol.codec.selection import SELECTORS, largest, random_indices, select
from fleet_protocol.codec.sparse import TensorLayout
from fleet_protocol.update_plan import UpdatePlan

SHAPES = [(20, 5), (20,), (3, 20)]
LAYOUT = TensorLayout.of(SHAPES)
VECTOR = np.random.default_rng(1).standard_normal(LAYOUT.size).astype(np.float32)


def chosen(**plan) -> np.ndarray:
    generator = np.random.default_rng(2)
    return select(VECTOR, LAYOUT, UpdatePlan(**({"keep_fraction": 0.1} | plan)), generator).indices


def test_top_k_per_tensor_keeps_its_share_of_each_tensor():
    assert LAYOUT.kept_per_tensor(chosen(selection="top_k_per_tensor")).tolist() == [10, 2, 6]


def test_threshold_keeps_what_reaches_it_up_to_the_keep_fraction():
    assert (np.abs(VECTOR[chosen(selection="threshold", threshold=2.0)]) >= 2.0).all()
    assert chosen(selection="threshold", threshold=9.0).size == 0
    assert np.array_equal(chosen(selection="threshold", threshold=0.01), chosen(selection="top_k"))


def test_of_equal_magnitudes_the_first_are_kept():
    assert largest(np.array([1, -2, 2, 2, -2, 1], np.float32), 3).tolist() == [1, 2, 3]


def test_an_infinite_or_undefined_entry_is_kept_for_the_receiver_to_refuse():
    assert largest(np.array([1, np.nan, 2, np.inf], np.float32), 2).tolist() == [1, 3]


@given(st.integers(0, 2**64 - 1), st.integers(1, 500), st.floats(0, 1))
def test_random_indices_are_distinct_and_follow_from_their_seed(seed, size, fraction):
    count = round(fraction * size)
    indices = random_indices(seed, count, size)
    assert indices.size == count
    assert (np.diff(indices) > 0).all()
    assert count == 0 or 0 <= indices[0] <= indices[-1] < size
    assert np.array_equal(indices, random_indices(seed, count, size))


def test_random_indices_reach_every_place_about_equally_often():
    hits = np.bincount(np.concatenate([random_indices(seed, 10, 100) for seed in range(3000)]), minlength=100)
    assert abs(hits - 300).max() < 6 * np.sqrt(300 * 0.9)


@pytest.mark.parametrize("quantisation", [Quantisation.INT8, Quantisation.INT4])
def test_stochastic_rounding_is_right_on_average_and_rounds_to_neighbours(quantisation):
    values, kept = np.linspace(-1, 1, 41, dtype=np.float32), np.array([41])
    generator = np.random.default_rng(4)
    drawn = np.array([quantise(values, kept, quantisation, generator).values for _ in range(4000)])
    step = np.diff(np.unique(quantise(values, kept, quantisation).values)).min()
    assert abs(drawn - values).max() <= step * 1.001
    assert abs(drawn.mean(axis=0) - values).max() < step * 0.05


@pytest.mark.parametrize(("quantisation", "step"), [(Quantisation.INT8, 1 / 127), (Quantisation.INT4, 1 / 7)])
def test_rounding_to_nearest_misses_by_half_a_step(quantisation, step):
    quantised = quantise(VECTOR / np.abs(VECTOR).max(), np.array([VECTOR.size]), quantisation)
    assert abs(quantised.values - VECTOR / np.abs(VECTOR).max()).max() <= step * 0.51


def test_sign_has_one_magnitude_and_ternary_one_for_each_tensor_with_a_kept_entry():
    values, kept = np.array([1, -3, 8], np.float32), np.array([2, 0, 1])
    assert quantise(values, kept, Quantisation.SIGN).values.tolist() == [4, -4, 4]
    assert quantise(values, kept, Quantisation.TERNARY).values.tolist() == [2, -2, 8]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_a_chosen_code_takes_no_more_bits_than_the_expected_rice_code(gaps):
    gaps = np.array(gaps, np.int64)
    size = int((gaps + 1).sum())
    parameter = expected_parameter(gaps.size, size)
    assert choose_code(gaps, size).bits <= int((gaps >> parameter).sum()) + (parameter + 1) * gaps.size + 1


def test_gaps_of_all_sizes_are_written_in_exp_golomb_code_and_alike_ones_in_rice_code():
    assert choose_code(np.arange(1000) % 10 // 9 * 1000, 200_000).kind == EXP_GOLOMB
    assert choose_code(np.random.default_rng(1).geometric(0.01, 1000) - 1, 100_000).kind == RICE


@given(st.integers(100, 5000), st.integers(1, 90), st.booleans())
def test_sampled_selection_is_the_exact_one(size, percent, alike):
    generator = np.random.default_rng(size)
    vector = generator.standard_normal(size).astype(np.float32)
    vector = np.round(vector, 1) if alike else vector
    count = max(1, size * percent // 100)
    expected = np.sort(np.argsort(-np.abs(vector), kind="stable")[:count])
    assert np.array_equal(largest(vector, count), expected)


@pytest.mark.parametrize("period", [63, 64])
def test_selection_is_exact_where_the_sample_misleads(period):
    vector = np.zeros(200_000, np.float32)
    vector[::period] = np.random.default_rng(1).standard_normal(vector[::period].size)
    expected = np.sort(np.argsort(-np.abs(vector), kind="stable")[:2000])
    assert np.array_equal(largest(vector, 2000), expected)


def test_gaps_count_what_is_skipped():
    assert gaps_of(np.array([0, 1, 5])).tolist() == [0, 0, 3]
    assert gaps_of(np.array([], np.int64)).size == 0


def test_every_choice_of_the_task_file_exists():
    choices = {field.name: field.type for field in msgspec.inspect.type_info(UpdatePlan).fields}
    assert set(SELECTORS) == set(choices["selection"].values)
    assert {quantisation.name.lower() for quantisation in Quantisation} == set(choices["quantisation"].values)


@given(st.lists(st.integers(0, 2**28 - 1) | st.integers(0, 300), max_size=50), st.binary(max_size=8))
def test_numbers_as_bytes_are_read_as_they_were_written(numbers, behind):
    coded = write_numbers(np.array(numbers, np.int64))
    assert coded == b"".join(map(write_leb128, numbers))
    read, used = read_numbers(memoryview(coded + behind), len(numbers))
    assert (read.tolist(), used) == (numbers, len(coded))


def test_numbers_as_bytes_are_read_across_windows():
    numbers = np.random.default_rng(1).integers(0, 2**20, 100_000)
    read, _ = read_numbers(memoryview(write_numbers(numbers)), numbers.size)
    assert np.array_equal(read, numbers)
