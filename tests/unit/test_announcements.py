"""Manifests are published when there is news, and repeated for who comes: never long after, never often."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.serving.announcements import REPEAT_SECONDS, Announcements


def published(announcements: Announcements, now: float) -> list[str]:
    found = []
    while (task := announcements.next_name(now)) is not None:
        announcements.done(task, now)
        found.append(task)
    return found


def test_news_is_published_at_once_however_often_there_is_some() -> None:
    announcements = Announcements()
    for _ in range(3):
        announcements.announce("digits")
        announcements.announce("roses")
        assert sorted(published(announcements, 1.0)) == ["digits", "roses"]
    assert published(announcements, 1.0) == []
    assert announcements.next_due() is None


def test_who_comes_first_is_answered_at_once_and_a_crowd_together() -> None:
    announcements = Announcements()
    announcements.repeat(["digits"], 100.0)
    assert published(announcements, 100.0) == ["digits"]
    for now in (100.5, 101.0, 104.9):
        announcements.repeat(["digits"], now)
        assert published(announcements, now) == []
    assert announcements.next_due() == 100.0 + REPEAT_SECONDS
    assert published(announcements, 100.0 + REPEAT_SECONDS) == ["digits"]
    assert announcements.next_due() is None


EIGHTHS = st.integers(0, 160).map(lambda number: number / 8)
"""Seconds that add without rounding."""


@given(st.lists(st.tuples(EIGHTHS, st.booleans()), max_size=50))
def test_everybody_hears_it_in_time_and_repetitions_are_apart(events) -> None:
    announcements, now = Announcements(), 0.0
    waiting_since: float | None = None
    repeated_at: list[float] = []
    for gap, comes in events:
        end = now + gap
        while (due := announcements.next_due()) is not None and due <= end:
            now = due
            assert published(announcements, now) == ["digits"]
            assert waiting_since is not None
            assert now - waiting_since <= REPEAT_SECONDS
            waiting_since = None
            repeated_at.append(now)
        now = end
        if comes:
            announcements.repeat(["digits"], now)
            waiting_since = now if waiting_since is None else waiting_since
    assert all(later - earlier >= REPEAT_SECONDS for earlier, later in pairwise(repeated_at))
