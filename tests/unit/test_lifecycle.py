"""The agent's life cycle: what the table says happens, and nothing else can."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.lifecycle import (
    HINDRANCES,
    IN_A_ROUND,
    TRANSITIONS,
    Event,
    Lifecycle,
    LifecycleError,
    State,
)

LEAVES_THE_ROUND = {
    State.DECIDING: Event.GUARD_REFUSED,
    State.FETCHING: Event.VERSION_UNAVAILABLE,
    State.TRAINING: Event.ROUND_ENDED,
}


def paths_to_every_state() -> dict[State, list[Event]]:
    """The shortest events that lead from a new life cycle to each state, found by driving it."""
    paths, frontier = {Lifecycle().state: []}, [[]]
    while frontier:
        path = frontier.pop(0)
        for event in Event:
            lifecycle = driven(path)
            try:
                lifecycle.advance(event)
            except LifecycleError:
                continue
            if lifecycle.state not in paths:
                paths[lifecycle.state] = [*path, event]
                frontier.append([*path, event])
    return paths


def driven(path: list[Event]) -> Lifecycle:
    lifecycle = Lifecycle()
    for event in path:
        lifecycle.advance(event)
    return lifecycle


PATHS = paths_to_every_state()


def test_every_state_is_reached_from_a_new_start():
    assert PATHS.keys() == set(State)
    assert PATHS[State.TRAINING] == [Event.TRIGGER_FIRED, Event.GUARDS_AGREED, Event.VERSION_READY]


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda value: value.value)
def test_event_follows_the_table_or_changes_nothing(state, event):
    lifecycle = driven(PATHS[state])
    if (state, event) in TRANSITIONS:
        lifecycle.advance(event)
        assert lifecycle.state is TRANSITIONS[state, event]
        return
    with pytest.raises(LifecycleError, match=f"{event.value}.*while {state.value}"):
        lifecycle.advance(event)
    assert lifecycle.state is state


def test_from_every_state_some_events_lead_back_to_sleep():
    for state in State:
        seen, frontier = {state}, [state]
        while frontier:
            here = frontier.pop()
            reached = {after for (before, _), after in TRANSITIONS.items() if before is here} - seen
            seen |= reached
            frontier += reached
        assert State.SLEEPING in seen


IN_A_ROUND_OF_TRAINING = [Event.TRIGGER_FIRED, Event.GUARDS_AGREED, Event.VERSION_READY]


@pytest.mark.parametrize("hindrance", HINDRANCES, ids=lambda state: state.value)
def test_hindrance_that_comes_in_a_round_takes_effect_at_its_end_with_its_reason(hindrance):
    lifecycle = driven(IN_A_ROUND_OF_TRAINING)
    lifecycle.hinder(hindrance, "as the coordinator says")
    assert lifecycle.state is State.TRAINING
    lifecycle.advance(Event.ROUND_ENDED)
    assert lifecycle.state is hindrance
    assert lifecycle.reason.endswith(": as the coordinator says")
    lifecycle.lift(hindrance)
    assert lifecycle.state is State.SLEEPING


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(HINDRANCES))), max_size=12), st.sampled_from(sorted(State))
)
def test_any_sequence_of_hindrances_leaves_the_first_that_lasts(changes, began):
    lifecycle = driven(PATHS[began] if began not in HINDRANCES else [])
    lasting = set()
    for begins, hindrance in changes:
        (lifecycle.hinder(hindrance, "why") if begins else lifecycle.lift(hindrance))
        (lasting.add if begins else lasting.discard)(hindrance)
    while lifecycle.state in IN_A_ROUND:
        lifecycle.advance(LEAVES_THE_ROUND[lifecycle.state])
    assert lifecycle.state is next((each for each in HINDRANCES if each in lasting), State.SLEEPING)


def test_newer_reason_of_a_hindrance_that_lasts_is_shown():
    lifecycle = Lifecycle()
    lifecycle.hinder(State.UNENROLLED, "no answer yet")
    lifecycle.hinder(State.UNENROLLED, "not approved")
    assert lifecycle.reason == "not enrolled: not approved"
