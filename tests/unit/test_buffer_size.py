"""How many updates the next version takes where the task leaves it to the fleet."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.buffer_size import (
    LARGEST_BUFFER,
    MOST_ALONG,
    TIMES_ROUND,
    UPDATES_LOOKED_AT,
    VERSIONS_LOOKED_AT,
    Held,
    Participants,
    full_at,
    has_gone_round,
)
from fleet_protocol.aggregation_plan import SMALLEST_BUFFER


def sizes(devices: int, versions: int, participants: Participants = Participants()) -> list[int]:  # noqa: B008 - frozen
    """The size after each version, where any device may be next."""
    generator = np.random.default_rng(1)
    found = []
    for version in range(1, versions + 1):
        senders = generator.integers(devices, size=participants.buffer_size())
        participants = participants.after(version, dict.fromkeys(map(str, senders), version - 1))
        found.append(participants.buffer_size())
    return found


@pytest.mark.parametrize(("devices", "settled"), [(1, 4), (8, 4), (40, 4), (100, 10), (400, 40), (10_000, 256)])
def test_size_settles_at_a_tenth_of_the_devices_within_its_limits(devices: int, settled: int) -> None:
    assert all(0.85 * settled <= size <= settled for size in sizes(devices, 150)[100:])


def test_size_begins_small_and_never_jumps() -> None:
    found = [SMALLEST_BUFFER, *sizes(10_000, 150)]
    assert found[:4] == [SMALLEST_BUFFER] * 4
    assert all(after <= 1.5 * before for before, after in pairwise(found))


def test_devices_that_went_away_no_longer_count() -> None:
    known = Participants({f"gone-{number}": Held(1, number // 4) for number in range(200)})
    assert known.buffer_size() == 20
    left = known
    for version in range(2, 2 + VERSIONS_LOOKED_AT):
        left = left.after(version, {"still-here": version - 1})
    assert left.buffer_size() == SMALLEST_BUFFER


def test_a_fleet_that_trains_at_one_hour_makes_two_versions_of_that() -> None:
    woken = Participants()
    for version in range(1, 6):
        woken = woken.after(version, {f"{version} {number}": 0 for number in range(SMALLEST_BUFFER)})
    assert woken.buffer_size() == 10
    for version in range(6, 11):
        woken = woken.after(version, {f"{version - 5} {number}": version - 1 for number in range(SMALLEST_BUFFER)})
    assert woken.buffer_size() == SMALLEST_BUFFER


@given(
    st.dictionaries(st.text(max_size=3), st.builds(Held, st.integers(0, 99), st.integers(0, 99))),
    st.dictionaries(st.text(max_size=3), st.integers(0, 99)),
    st.integers(0, 200),
)
def test_size_stays_within_its_limits_whoever_sends(held, began_with, version) -> None:
    assert SMALLEST_BUFFER <= Participants(held).after(version, began_with).buffer_size() <= LARGEST_BUFFER


@pytest.mark.parametrize(
    ("senders", "expected"), [("", False), ("aaa", False), ("aaaa", True), ("abcab", False), ("abcabc", True)]
)
def test_version_is_due_when_twice_as_many_updates_wait_as_devices_send(senders: str, expected: bool) -> None:
    assert has_gone_round(len(senders), senders) == expected


def test_version_is_not_due_when_one_device_sends_fast_and_the_others_are_still_there() -> None:
    others = [str(number) for number in range(40)]
    assert not has_gone_round(10, [*"a" * 10, *others])
    assert has_gone_round(64, [*"a" * 64, *others])


@given(st.integers(0, 200), st.lists(st.integers(0, 80).map(str), max_size=90))
def test_senders_are_counted_no_further_than_it_takes(waiting: int, newest_first: list[str]) -> None:
    looked_at = newest_first[:UPDATES_LOOKED_AT]
    expected = waiting >= max(SMALLEST_BUFFER, TIMES_ROUND * len(set(looked_at)))
    assert has_gone_round(waiting, iter(newest_first)) == expected


@pytest.mark.parametrize(
    ("waiting", "count"),
    [("", None), ("ddd", None), ("dddd", 4), ("hdhddhddh", 7), ("hhddh", None), ("d" + "h" * 40, MOST_ALONG * 4)],
)
def test_updates_of_helpers_go_along_with_those_that_take_a_place(waiting: str, count: int | None) -> None:
    """And where nothing else comes, they make a version in the end."""
    assert full_at((letter == "d" for letter in waiting), 4) == count
