"""The agent's life cycle: what the table says happens, and nothing else can."""

from itertools import product

import pytest

from edge_agent.core.lifecycle import TRANSITIONS, Event, Lifecycle, LifecycleError, State


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
