"""For how long a device does without a helper, and of how many it knows that."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.left_out_helpers import FIRST_SECONDS, LONGEST_SECONDS, LeftOutHelpers
from fleet_protocol.limits import MAX_HELPERS_LEFT_OUT


def test_helper_is_left_out_for_longer_each_time_up_to_an_hour_and_asked_again_in_between() -> None:
    left_out, now, waits = LeftOutHelpers(), 0.0, []
    for _ in range(10):
        waits.append(left_out.blame("rogue-pi", "it answers wrong", now))
        assert left_out.at(now + waits[-1] - 0.1) == ("rogue-pi",)
        now += waits[-1]
        assert left_out.at(now) == ()
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS


def test_helper_that_is_forgiven_begins_with_the_shortest_time_again() -> None:
    left_out = LeftOutHelpers()
    left_out.blame("rogue-pi", "it answers wrong", 0.0)
    left_out.forgive("rogue-pi")
    assert left_out.at(0.0) == ()
    assert left_out.words(0.0) == ""
    assert left_out.blame("rogue-pi", "it answers wrong", 0.0) == FIRST_SECONDS


def test_words_name_each_helper_why_and_for_how_long() -> None:
    left_out = LeftOutHelpers()
    left_out.blame("rogue-pi", "it answers wrong", 0.0)
    left_out.blame("slow-pi", "no answer for 90 s", 10.0)
    assert left_out.words(20.0) == (
        "rogue-pi is left out for 40 s (it answers wrong); slow-pi is left out for 50 s (no answer for 90 s)"
    )


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1e6)), max_size=60))
def test_as_many_are_left_out_as_an_opening_names_and_the_last_one_is_among_them(blamed) -> None:
    left_out = LeftOutHelpers()
    for number, now in sorted(blamed, key=lambda each: each[1]):
        left_out.blame(f"pi-{number}", "it answers wrong", now)
        assert f"pi-{number}" in left_out.at(now)
        assert len(left_out.at(now)) <= MAX_HELPERS_LEFT_OUT
