"""The model to use is the mean of the last versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.averaging import (
    FEWEST_USUAL,
    MOST_USUAL,
    RecentVersions,
    averaged_numbers,
    averaged_weights,
    most_averaged,
)
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.parameter import Parameter
from tests.support.bundles import PARAMETERS


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=36).astype(np.float32)


def test_average_is_the_mean_of_the_versions():
    vectors = [vector(seed) for seed in range(4)]
    files = [write_weights(one, PARAMETERS) for one in vectors]
    averaged = averaged_weights(files, PARAMETERS)
    expected = np.mean(np.stack(vectors).astype(np.float64), axis=0).astype(np.float32)
    np.testing.assert_array_equal(read_weights(averaged, PARAMETERS), expected)


def test_one_version_is_given_back_byte_for_byte():
    file = write_weights(vector(1), PARAMETERS)
    assert averaged_weights([file], PARAMETERS) == file


def test_version_of_another_model_is_refused():
    files = [write_weights(vector(1), PARAMETERS), write_weights(vector(2), [Parameter("other", [36])])]
    with pytest.raises(ProtocolError) as caught:
        averaged_weights(files, PARAMETERS)
    assert caught.value.reason is Reason.WRONG_SHAPE


@pytest.mark.parametrize(("made", "expected"), [(0, 0.0), (1, 1.0), (3, 3.0), (4, 3.5), (6, 5.0), (7, 6.0)])
def test_versions_in_memory_are_averaged_as_an_export_averages_them(made: int, expected: float) -> None:
    recent = RecentVersions(3)
    for number in range(made + 1):
        recent.add(number, write_weights(np.full(36, number, np.float32), PARAMETERS))
    assert read_weights(recent.model(PARAMETERS), PARAMETERS)[0] == expected


COUNTS = st.none() | st.integers(1, 50)


@given(st.integers(1, 1000), COUNTS)
def test_newest_versions_are_averaged_and_never_more_than_the_newer_half(made: int, count: int | None) -> None:
    candidates = list(range(made, 0, -1))
    averaged = averaged_numbers(candidates, made, count)
    assert averaged == candidates[: len(averaged)]
    assert 1 <= len(averaged) <= max(1, made // 2)
    assert len(averaged) <= most_averaged(count)


@given(st.integers(100, 1000), st.integers(1, 50))
def test_a_count_that_the_task_names_is_kept(made: int, count: int) -> None:
    assert len(averaged_numbers(list(range(made, 0, -1)), made, count)) == count


@pytest.mark.parametrize(
    ("made", "averaged"),
    [(1, 1), (7, 3), (20, FEWEST_USUAL), (43, FEWEST_USUAL), (80, 20), (255, 63), (9000, MOST_USUAL)],
)
def test_left_out_ten_versions_are_averaged_or_a_quarter_of_all(made: int, averaged: int) -> None:
    assert len(averaged_numbers(list(range(made, 0, -1)), made, None)) == averaged


@given(st.integers(0, 300), COUNTS)
def test_versions_in_memory_are_those_that_an_export_averages(made: int, count: int | None) -> None:
    recent = RecentVersions(count)
    for number in range(made + 1):
        recent.add(number, b"")
    assert list(recent.averaged) == list(averaged_numbers(list(range(made, 0, -1)), made, count))


def test_own_version_of_a_later_bundle_is_untrained_too() -> None:
    recent = RecentVersions(3)
    for number in range(7, 12):
        recent.add(number, b"")
    assert list(recent.averaged) == [11, 10]


def test_versions_that_were_rolled_back_from_are_averaged_no_more() -> None:
    recent = RecentVersions(None)
    for number in range(7):
        recent.add(number, b"")
    recent.drop_after(4)
    recent.add(7, b"")
    assert list(recent.averaged) == [7, 4]


def test_without_a_version_there_is_no_model() -> None:
    recent = RecentVersions(None)
    assert list(recent.averaged) == []
    with pytest.raises(ValueError, match="no version to average"):
        recent.model(PARAMETERS)
