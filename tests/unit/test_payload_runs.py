"""Runs of positions hold each once, and no other one."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.storage.payload_runs import runs_of


@given(st.sets(st.integers(1, 60)).map(sorted))
def test_runs_hold_each_position_once_and_no_other_one_and_are_as_few_as_can_be(positions: list[int]) -> None:
    runs = runs_of(positions)
    assert [position for first, last in runs for position in range(first, last + 1)] == positions
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(runs))
