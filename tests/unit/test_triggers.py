"""Triggers: one condition or all of them, and what wakes an agent whatever the others say."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.triggers import Condition, Trigger, TriggerSettings, conditions

EVERY = TriggerSettings(
    new_samples=4,
    new_version=True,
    schedule="0 3 * * *",
    wake_file="/run/wake",
    invitation=True,
    worse_by=0.5,
    drift=0.25,
)
SETTABLE = conditions(EVERY)
EVENTS = st.sets(st.sampled_from(SETTABLE))


def trigger(settings: TriggerSettings, met: set[Condition]) -> Trigger:
    """One for which exactly these conditions have come true."""
    samples = 4 if Condition.NEW_SAMPLES in met else 3
    made = Trigger(settings, samples, has_new_version=Condition.NEW_VERSION in met)
    for condition in met - {Condition.NEW_SAMPLES, Condition.NEW_VERSION}:
        made.note(condition)
    return made


def test_every_condition_but_a_request_can_be_set():
    assert {*SETTABLE, Condition.ASKED} == set(Condition)


@given(EVENTS)
def test_any_fires_with_the_first_condition_and_all_with_the_last(met):
    assert trigger(EVERY, met).has_fired == bool(met)
    assert trigger(msgspec.structs.replace(EVERY, combine="all"), met).has_fired == (met == set(SETTABLE))


@given(EVENTS)
def test_condition_that_is_not_set_fires_nothing(met):
    settings = TriggerSettings(new_samples=4)
    assert trigger(settings, met).has_fired == (Condition.NEW_SAMPLES in met)


def test_samples_alone_wake_nothing_where_their_number_is_zero():
    assert not Trigger(TriggerSettings(new_samples=0, new_version=True), 1000).has_fired


@pytest.mark.parametrize("combine", ["any", "all"])
def test_request_is_enough_by_itself(combine):
    asked = trigger(msgspec.structs.replace(EVERY, combine=combine), set())
    asked.note(Condition.ASKED)
    assert asked.has_fired
    assert asked.fired_by == "somebody asked"


def test_event_lasts_until_a_round_that_began_after_it_has_ended():
    nightly = Trigger(TriggerSettings(new_samples=0, schedule="0 3 * * *"), 0)
    nightly.note(Condition.SCHEDULE)
    nightly.round_began()
    assert nightly.has_fired
    nightly.note(Condition.SCHEDULE)
    nightly.round_ended()
    assert nightly.has_fired
    nightly.round_began()
    nightly.round_ended()
    assert not nightly.has_fired


def test_what_lacks_is_said():
    lacking = trigger(msgspec.structs.replace(EVERY, combine="all"), {Condition.NEW_VERSION})
    assert lacking.waits_for == (
        "1 more new samples and the next time of '0 3 * * *' and the file /run/wake"
        " and an invitation from the coordinator and a loss that is higher by 0.5 of it on new samples"
        " and a shift of 0.25 in an input"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"new_samples": 0}, "nothing would ever wake"), ({"wake_file": "wake"}, r"matching regex '\^/")],
)
def test_trigger_that_can_not_work_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        msgspec.convert(settings, TriggerSettings)
