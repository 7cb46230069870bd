"""How much of the last updates one device may have sent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.shares import LARGEST_WINDOW, SMALLEST_WINDOW, is_beyond_share, trickle, window


@pytest.mark.parametrize(
    ("buffer_size", "max_staleness", "size"), [(1, 20, 10), (4, 20, 40), (100, 20, 64), (1, 0, 8), (4, 2, 8)]
)
def test_window_is_what_makes_half_as_many_versions_as_a_device_may_be_behind(buffer_size, max_staleness, size) -> None:
    assert window(buffer_size, max_staleness) == size


names = st.sampled_from("abcdefgh")


@given(st.lists(names, max_size=200), names, st.integers(SMALLEST_WINDOW, LARGEST_WINDOW))
def test_no_device_has_more_than_its_share_of_any_window(offered, device, size) -> None:
    recent: list[str] = []
    for name in offered:
        if not is_beyond_share(recent[-size:], name, size, others_listen=True):
            recent.append(name)
    for begin in range(len(recent)):
        seen = recent[begin : begin + size]
        assert seen.count(device) <= math.ceil(0.75 * size)


@given(st.lists(names, max_size=64), names)
def test_device_that_sent_nothing_always_has_a_share(recent, device) -> None:
    assert not is_beyond_share([name for name in recent if name != device], device, 64, others_listen=True)


def test_device_alone_has_all_of_it_while_nobody_listens() -> None:
    assert not is_beyond_share(["a"] * 64, "a", 64, others_listen=False)
    assert is_beyond_share(["a"] * 48, "a", 64, others_listen=True)
    assert is_beyond_share(["a"] * 48 + ["b"], "a", 64, others_listen=False)


@pytest.mark.parametrize("buffer_size", [1, 4, 100])
def test_alone_a_device_makes_a_version_in_four_minutes(buffer_size) -> None:
    assert trickle(buffer_size).interval_seconds * buffer_size == pytest.approx(240)
    assert trickle(buffer_size).burst <= 2 * buffer_size
