"""How much of the last updates one device may have sent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.shares import LARGEST_WINDOW, SMALLEST_WINDOW, RecentDevices, trickle, window


@pytest.mark.parametrize(
    ("buffer_size", "max_staleness", "size"), [(1, 20, 10), (4, 20, 40), (100, 20, 64), (1, 0, 8), (4, 2, 8)]
)
def test_window_is_what_makes_half_as_many_versions_as_a_device_may_be_behind(buffer_size, max_staleness, size) -> None:
    assert window(buffer_size, max_staleness) == size


names = st.sampled_from("abcdefgh")


@given(st.lists(names, max_size=200), names, st.integers(SMALLEST_WINDOW, LARGEST_WINDOW))
def test_no_device_has_more_than_its_share_of_any_window(offered, device, size) -> None:
    accepted: list[str] = []
    recent = RecentDevices(size)
    for name in offered:
        if not recent.is_beyond_share(name, others_listen=True):
            recent.add(name)
            accepted.append(name)
    for begin in range(len(accepted)):
        seen = accepted[begin : begin + size]
        assert seen.count(device) <= math.ceil(0.75 * size)


@given(st.lists(names, max_size=64), names)
def test_device_that_sent_nothing_always_has_a_share(recent, device) -> None:
    assert not RecentDevices(64, [name for name in recent if name != device]).is_beyond_share(
        device, others_listen=True
    )


def test_device_alone_has_all_of_it_while_nobody_listens() -> None:
    assert not RecentDevices(64, ["a"] * 64).is_beyond_share("a", others_listen=False)
    assert RecentDevices(64, ["a"] * 48).is_beyond_share("a", others_listen=True)
    assert RecentDevices(64, ["a"] * 48 + ["b"]).is_beyond_share("a", others_listen=False)


@pytest.mark.parametrize("buffer_size", [1, 4, 100])
def test_alone_a_device_makes_a_version_in_four_minutes(buffer_size) -> None:
    assert trickle(buffer_size).interval_seconds * buffer_size == pytest.approx(240)
    assert trickle(buffer_size).burst <= 2 * buffer_size


@given(st.lists(names, max_size=100), st.integers(1, 20))
def test_window_counts_as_if_it_were_made_anew_and_a_copy_leaves_it_alone(added, size) -> None:
    recent = RecentDevices(size)
    for name in added:
        recent.copy().add("somebody else")
        recent.add(name)
    anew = RecentDevices(size, added)
    for name in "abcdefghi":
        for listen in (True, False):
            assert recent.is_beyond_share(name, others_listen=listen) == anew.is_beyond_share(
                name, others_listen=listen
            )
