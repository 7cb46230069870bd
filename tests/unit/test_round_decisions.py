"""When a round begins, what puts it off and for how long, and that what diverged is not tried again alike."""

from dataclasses import replace

import pytest

from edge_agent.core.delivery import REMEDIES, Remedy
from edge_agent.core.enrolment import FIRST_ANSWER_SECONDS, LAST_ANSWER_SECONDS, Answer, EnrolmentAttempts
from edge_agent.core.growing_waits import FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS
from edge_agent.core.guards import GuardSettings, Readings
from edge_agent.core.lifecycle import State
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.round_decisions import AfterReceipt, RoundDecisions, StartingPoint
from edge_agent.core.triggers import Condition, Trigger, TriggerSettings
from edge_agent.core.version_choice import KnownVersion
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import UPDATE, Outcome, Receipt

START = StartingPoint(3, "0f" * 32, 40)
KNOWN, NEWER = KnownVersion(3, "0f" * 32, "aa" * 32), KnownVersion(4, "0f" * 32, "bb" * 32)
READY = Readings(stored_samples=16, waiting_updates=0, free_memory_mib=1000.0)


def decisions(new_samples: int = 0) -> RoundDecisions:
    return RoundDecisions(GuardSettings(), {"digits": Trigger(TriggerSettings(4), new_samples)})


def test_agent_wakes_up_with_the_sample_that_fires_the_trigger():
    agent = decisions()
    assert [agent.samples_arrived("digits") for _ in range(5)] == [False, False, False, True, True]


def test_samples_that_came_before_a_restart_count():
    assert decisions(new_samples=4).is_due("digits", KNOWN, 0.0)


def test_round_ends_with_the_samples_that_came_while_it_ran():
    agent = decisions(new_samples=4)
    assert agent.begin("digits", READY) is None
    assert agent.state is State.FETCHING
    assert agent.version_ready("digits", START) is None
    agent.samples_arrived("digits", 3)
    agent.ended("digits", 3, "spooled")
    assert (agent.state, agent.new_samples("digits"), agent.is_due("digits", KNOWN, 0.0)) == (State.SLEEPING, 3, False)
    assert not agent.is_deferred("digits")


@pytest.mark.parametrize(
    ("left", "stored", "words", "deferred"),
    [
        (3, 40, "3 new samples are left, the trigger waits for 1 more new samples", False),
        (0, 0, "0 new samples are left, the trigger waits for 4 more new samples", False),
        (4, 15, "15 stored samples, the limit is at least 16", True),
    ],
)
def test_samples_that_did_not_fit_count_for_no_trigger_and_no_guard(left, stored, words, deferred):
    agent = decisions(new_samples=20)
    agent.begin("digits", READY)
    assert agent.samples_dropped("digits", left, Readings(stored_samples=stored, waiting_updates=0)) == words
    assert (agent.state, agent.new_samples("digits"), agent.is_deferred("digits")) == (State.SLEEPING, left, deferred)


def test_fitting_samples_that_come_after_unfit_ones_wake_the_agent_at_once():
    agent = decisions(new_samples=4)
    agent.begin("digits", READY)
    agent.samples_dropped("digits", 0, Readings(stored_samples=0, waiting_updates=0))
    assert [agent.samples_arrived("digits") for _ in range(4)] == [False, False, False, True]


def test_round_goes_on_where_enough_samples_fit():
    agent = decisions(new_samples=6)
    agent.begin("digits", READY)
    assert agent.samples_dropped("digits", 4, READY) is None
    assert agent.version_ready("digits", START) is None
    assert agent.state is State.TRAINING


def test_trigger_that_was_put_off_waits_and_samples_do_not_wake_it():
    for put_off in (
        lambda agent: agent.begin("digits", Readings(stored_samples=1, waiting_updates=0)),
        lambda agent: (agent.begin("digits", READY), agent.version_unavailable("digits", "no manifest yet")),
        lambda agent: (
            agent.begin("digits", READY),
            agent.version_ready("digits", START),
            agent.failed("digits", None, 0.0, "no memory"),
        ),
    ):
        agent = decisions(new_samples=4)
        put_off(agent)
        assert (agent.state, agent.is_deferred("digits"), agent.missing_samples("digits")) == (State.SLEEPING, True, 0)
        assert not agent.samples_arrived("digits")
        agent.retry_deferred_trigger("digits")
        assert agent.samples_arrived("digits")


def test_refusal_of_a_guard_is_said():
    assert "15 stored samples" in decisions(new_samples=4).begin(
        "digits", Readings(stored_samples=15, waiting_updates=0)
    )


def test_what_diverged_is_tried_again_with_another_version_bundle_or_sample_only():
    agent = decisions(new_samples=4)
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    agent.diverged("digits", START)
    agent.failed("digits", None, 0.0, "no memory")
    for start, refused in (
        (START, True),
        (StartingPoint(4, START.bundle, 40), False),
        (StartingPoint(3, "f0" * 32, 40), False),
        (StartingPoint(3, START.bundle, 41), False),
        (START, True),
    ):
        agent.begin("digits", READY)
        assert (agent.version_ready("digits", start) is not None) == refused
        if not refused:
            agent.failed("digits", None, 0.0, "no memory")


def test_enrolment_is_repeated_until_accepted_with_growing_patience():
    attempts = EnrolmentAttempts()
    waits = [attempts.sent(bytes([number]) * 16) for number in range(8)]
    assert waits == [min(FIRST_ANSWER_SECONDS * 2**number, LAST_ANSWER_SECONDS) for number in range(8)]
    attempts.start()
    assert attempts.sent(bytes(16)) == FIRST_ANSWER_SECONDS


def test_any_enrolment_that_was_sent_may_be_answered_and_nobody_elses():
    attempts = EnrolmentAttempts()
    for number in range(3):
        attempts.sent(bytes([number]) * 16)

    def answer(number: int, outcome: Outcome) -> Answer:
        return attempts.receive(Receipt(bytes([number]) * 16, outcome, "", "", 0, 1))

    assert answer(9, Outcome.ACCEPTED) is Answer.NOT_OURS
    assert answer(0, Outcome.REJECTED) is Answer.REFUSED
    assert answer(1, Outcome.ACCEPTED) is Answer.ACCEPTED
    assert answer(1, Outcome.ACCEPTED) is Answer.NOT_OURS


def test_refused_guard_of_one_task_puts_no_other_off():
    triggers = {task: Trigger(TriggerSettings(4), 4) for task in ("digits", "tones")}
    agent = RoundDecisions(GuardSettings(), triggers)
    assert agent.begin("digits", Readings(stored_samples=1, waiting_updates=0))
    assert not agent.is_due("digits", KNOWN, 0.0)
    assert agent.is_due("tones", KNOWN, 0.0)
    assert agent.samples_arrived("tones")


def fail(agent: RoundDecisions, now: float) -> float:
    """A round that begins and fails; the trigger is retried at once, as by a receipt. Returns the wait."""
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    wait = agent.failed("digits", KNOWN, now, "no memory")
    agent.retry_deferred_trigger("digits")
    return wait


def test_rounds_that_fail_wait_longer_each_time_whatever_wakes_the_agent_until_another_version():
    agent, now = decisions(new_samples=4), 0.0
    for attempt in range(12):
        assert agent.is_due("digits", KNOWN, now)
        wait = fail(agent, now)
        assert wait == min(FIRST_WAIT_SECONDS * 2**attempt, LAST_WAIT_SECONDS)
        agent.samples_arrived("digits", 100)
        assert not agent.is_due("digits", KNOWN, now + wait - 1)
        now += wait
    assert agent.is_due("digits", NEWER, now - 1)
    assert fail(agent, now) == LAST_WAIT_SECONDS


def test_round_that_ends_makes_the_next_wait_short():
    agent = decisions(new_samples=4)
    assert [fail(agent, 0.0), fail(agent, 0.0)] == [FIRST_WAIT_SECONDS, 2 * FIRST_WAIT_SECONDS]
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    agent.ended("digits", 4, "spooled")
    assert fail(agent, 0.0) == FIRST_WAIT_SECONDS


def test_failure_that_is_not_the_versions_is_retried_as_a_guard_is():
    agent = decisions(new_samples=4)
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    assert agent.failed("digits", None, 0.0, "no memory") == GuardSettings().recheck_seconds
    agent.retry_deferred_trigger("digits")
    assert agent.is_due("digits", KNOWN, 0.0)


UPDATE_ROW = OutboxRow(9, UPDATE.number, "digits", KNOWN.bundle, KNOWN.version, b"", b"")


def receipt(reason: str = "") -> Receipt:
    outcome = Outcome.REJECTED if reason else Outcome.ACCEPTED
    return Receipt(bytes(16), outcome, reason, "", 0, 0)


@pytest.mark.parametrize("reason", [Reason.TOO_STALE, Reason.UNKNOWN_VERSION, Reason.UNKNOWN_TASK])
def test_nothing_is_trained_from_a_version_that_was_refused_as_outdated(reason):
    agent = decisions(new_samples=4)
    assert agent.answered(UPDATE_ROW, receipt(reason), KNOWN, 0.0) == AfterReceipt(is_outdated=True)
    assert not agent.is_due("digits", KNOWN, 1e9)
    assert agent.is_due("digits", NEWER, 0.0)


def test_version_whose_updates_are_too_large_is_trained_from_less_and_less_often():
    agent = decisions(new_samples=4)
    waits = [agent.answered(UPDATE_ROW, receipt(Reason.OUT_OF_BOUNDS), KNOWN, 0.0) for _ in range(3)]
    assert waits == [AfterReceipt(wait_seconds=seconds) for seconds in (60, 120, 240)]
    assert not agent.is_due("digits", KNOWN, 239)
    assert agent.is_due("digits", NEWER, 0)
    assert agent.answered(UPDATE_ROW, receipt(), KNOWN, 0.0) == AfterReceipt()
    assert agent.is_due("digits", KNOWN, 0)


@pytest.mark.parametrize(("newest", "reason"), [(KNOWN, Reason.RATE_LIMITED), (NEWER, Reason.OUT_OF_BOUNDS),
                                                (NEWER, Reason.TOO_STALE), (None, Reason.TOO_STALE)])  # fmt: skip
def test_receipt_that_says_nothing_of_the_newest_version_holds_up_nothing(newest, reason):
    agent = decisions(new_samples=4)
    assert agent.answered(UPDATE_ROW, receipt(reason), newest, 0.0) == AfterReceipt()
    assert agent.is_due("digits", newest, 0.0)


def test_every_refusal_is_the_reason_that_status_shows():
    agent = decisions(new_samples=4)
    refused = agent.begin("digits", Readings(stored_samples=15, waiting_updates=0))
    assert agent.task_state("digits", KNOWN, 0.0).reason == f"guard refused: {refused}"
    agent.begin("digits", READY)
    agent.version_unavailable("digits", "no manifest yet")
    shown = agent.task_state("digits", KNOWN, 0.0)
    assert (shown.state, shown.reason) == (State.SLEEPING, "version unavailable: no manifest yet")
    assert shown.waits_for.startswith("the next try")


def test_status_says_how_many_samples_lack():
    assert decisions(new_samples=1).task_state("digits", KNOWN, 0.0).waits_for == "3 more new samples"


def test_paused_task_trains_again_after_any_other_answer():
    for answer in (receipt(), receipt(Reason.TOO_STALE)):
        agent = decisions(new_samples=4)
        agent.answered(UPDATE_ROW, receipt(Reason.TASK_PAUSED), NEWER, 0.0)
        assert (agent.state, agent.is_due("digits", NEWER, 0.0)) == (State.PAUSED, False)
        agent.answered(UPDATE_ROW, answer, NEWER, 0.0)
        assert agent.is_due("digits", NEWER, 0.0)


def test_unenrolled_device_and_ended_task_start_no_round():
    agent = decisions(new_samples=4)
    agent.not_enrolled("not approved")
    assert (agent.state, agent.is_due("digits", KNOWN, 0.0)) == (State.UNENROLLED, False)
    agent.manifest_changed("digits", 4, has_ended=True)
    agent.enrolled()
    assert (agent.state, agent.is_due("digits", KNOWN, 0.0)) == (State.ENDED, False)
    agent.manifest_changed("digits", 4)
    assert agent.is_due("digits", KNOWN, 0.0)


def test_agent_is_shown_as_lively_as_its_liveliest_task():
    triggers = {name: Trigger(TriggerSettings(4), 4) for name in ("digits", "tones")}
    agent = RoundDecisions(GuardSettings(), triggers)
    agent.manifest_changed("digits", 4, has_ended=True)
    assert agent.state is State.SLEEPING
    agent.begin("tones", READY)
    assert agent.state is State.FETCHING


def test_request_ends_with_the_round_that_began_after_it_and_one_in_a_round_brings_another():
    agent = decisions()
    agent.note("digits", Condition.ASKED)
    assert agent.is_due("digits", KNOWN, 0.0)
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    agent.ended("digits", 0, "spooled")
    assert not agent.is_due("digits", KNOWN, 0.0)
    agent.note("digits", Condition.ASKED)
    agent.begin("digits", READY)
    agent.note("digits", Condition.ASKED)
    agent.version_ready("digits", START)
    agent.ended("digits", 0, "spooled")
    assert agent.is_due("digits", KNOWN, 0.0)


def test_request_survives_a_refusal_and_a_new_one_does_not_wait_for_the_next_try():
    agent = decisions()
    agent.note("digits", Condition.ASKED)
    assert agent.begin("digits", Readings(stored_samples=1, waiting_updates=0))
    assert agent.is_deferred("digits")
    agent.note("digits", Condition.ASKED)
    assert agent.is_due("digits", KNOWN, 0.0)


def test_what_fired_is_the_reason_of_a_round_that_is_decided():
    agent = decisions(new_samples=4)
    agent.note("digits", Condition.ASKED)
    assert agent.task_state("digits", KNOWN, 0.0).waits_for == ""
    agent.begin("digits", READY)
    assert agent.task_state("digits", KNOWN, 0.0).reason == "guards agreed: new samples, somebody asked"


def test_stopped_training_is_tried_again_and_says_why():
    agent = decisions(new_samples=4)
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    assert agent.why_stop(READY) is None
    agent.stopped("digits", "the machine runs on its battery")
    shown = agent.task_state("digits", KNOWN, 0.0)
    assert (shown.state, shown.reason) == (State.SLEEPING, "guard refused: the machine runs on its battery")
    assert agent.is_deferred("digits")
    agent.retry_deferred_trigger("digits")
    assert agent.is_due("digits", KNOWN, 0.0)


def test_sleeping_device_hears_of_versions_only_while_one_may_change_what_it_does():
    agent = decisions(new_samples=4)
    assert agent.waits_for_version("digits", None, 0.0), "it knows none yet"
    assert not agent.waits_for_version("digits", KNOWN, 0.0)
    agent.begin("digits", READY)
    agent.version_unavailable("digits", "the round of version 3 asks other devices")
    assert agent.waits_for_version("digits", KNOWN, 0.0)
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    assert not agent.waits_for_version("digits", KNOWN, 0.0)
    agent.stopped("digits", "the machine runs on its battery")
    assert not agent.waits_for_version("digits", KNOWN, 0.0), "a guard refused, no version helps"


def test_device_whose_updates_are_outdated_hears_of_versions_until_there_is_a_newer_one():
    agent = decisions()
    agent.answered(UPDATE_ROW, receipt(Reason.TOO_STALE), KNOWN, 0.0)
    assert agent.waits_for_version("digits", KNOWN, 0.0)
    assert not agent.waits_for_version("digits", NEWER, 0.0)


@pytest.mark.parametrize("begin", ["paused", "ended"])
def test_device_of_a_task_that_makes_no_versions_hears_of_the_next_one(begin):
    agent = decisions()
    if begin == "paused":
        agent.answered(UPDATE_ROW, receipt(Reason.TASK_PAUSED), NEWER, 0.0)
    else:
        agent.manifest_changed("digits", 0, has_ended=True)
    assert agent.waits_for_version("digits", NEWER, 0.0)


def test_trigger_that_waits_for_a_version_hears_of_each_until_there_is_one():
    agent = RoundDecisions(GuardSettings(), {"digits": Trigger(TriggerSettings(4, new_version=True), 0)})
    assert agent.waits_for_version("digits", KNOWN, 0.0)
    assert agent.version_known("digits", None, KNOWN, 0.0) is None
    assert not agent.waits_for_version("digits", KNOWN, 0.0)


def awaiting(**settings) -> RoundDecisions:
    """A device that trains at each version, and has trained from KNOWN for twenty seconds until 100."""
    agent = RoundDecisions(GuardSettings(), {"digits": Trigger(TriggerSettings(4, **settings), 0)})
    agent.update_spooled("digits", KNOWN, UPDATE_ROW.sequence - 1, 100.0, 20.0)
    return agent


def test_a_version_that_came_before_the_receipt_of_its_last_update_is_waited_behind():
    agent = awaiting(new_version=True)
    assert agent.version_known("digits", KNOWN, NEWER, 101.0) == 120.0
    assert not agent.has_fired("digits")
    agent.answered(UPDATE_ROW, receipt(), NEWER, 102.0)
    assert agent.version_known("digits", KNOWN, NEWER, 103.0) == 120.0
    assert agent.waits_for_version("digits", NEWER, 103.0)
    with_it = replace(NEWER, version=NEWER.version + 1)
    assert agent.version_known("digits", KNOWN, with_it, 104.0) is None
    assert agent.has_fired("digits")


def test_nobody_waits_for_longer_than_its_round_took():
    agent = awaiting(new_version=True)
    assert agent.version_known("digits", KNOWN, NEWER, 119.9) == 120.0
    assert agent.version_known("digits", KNOWN, NEWER, 120.0) is None
    assert agent.has_fired("digits")


def test_an_update_that_is_refused_is_not_waited_for():
    agent = awaiting(new_version=True)
    agent.answered(UPDATE_ROW, receipt(Reason.TOO_STALE), NEWER, 102.0)
    assert agent.version_known("digits", KNOWN, NEWER, 103.0) is None
    assert agent.has_fired("digits")


@pytest.mark.parametrize("outcome", [(), (Reason.TOO_STALE,)])
def test_a_receipt_for_what_an_earlier_round_sent_says_nothing_of_the_last_update(outcome):
    agent = awaiting(new_version=True)
    earlier = replace(UPDATE_ROW, sequence=UPDATE_ROW.sequence - 1)
    agent.answered(earlier, receipt(*outcome), KNOWN, 101.0)
    assert agent.version_known("digits", KNOWN, NEWER, 102.0) == 120.0


@pytest.mark.parametrize("reason", [each for each, meant in REMEDIES.items() if meant is not Remedy.TAKE_BACK])
def test_an_update_that_stays_in_the_outbox_is_waited_for_still(reason):
    agent = awaiting(new_version=True)
    agent.answered(UPDATE_ROW, receipt(reason), NEWER, 101.0)
    assert agent.version_known("digits", KNOWN, NEWER, 102.0) == 120.0
    renumbered = replace(UPDATE_ROW, sequence=UPDATE_ROW.sequence + 7)
    agent.answered(renumbered, receipt(), NEWER, 103.0)
    with_it = replace(NEWER, version=NEWER.version + 1)
    assert agent.version_known("digits", KNOWN, with_it, 104.0) is None


@pytest.mark.parametrize("line", [{"generation": KNOWN.generation + 1}, {"bundle": "1e" * 32}])
def test_an_update_without_a_receipt_is_not_waited_for_in_versions_that_never_hold_it(line):
    agent = awaiting(new_version=True)
    assert agent.version_known("digits", KNOWN, replace(NEWER, **line), 101.0) is None
    assert agent.has_fired("digits")


def test_a_new_generation_has_nothing_of_its_own_to_wait_for():
    agent = awaiting(new_version=True)
    agent.answered(UPDATE_ROW, receipt(), NEWER, 102.0)
    assert (
        agent.version_known("digits", KNOWN, replace(KNOWN, version=0, generation=KNOWN.generation + 1), 103.0) is None
    )


def test_who_trains_when_samples_come_asks_for_no_time():
    assert awaiting().version_known("digits", KNOWN, NEWER, 101.0) is None


def test_decisions_of_a_process_that_has_just_started_are_as_new():
    assert decisions().are_as_new("digits", None)
    assert decisions(new_samples=7).are_as_new("digits", KNOWN)


def test_decisions_after_a_round_are_as_new_and_in_it_are_not():
    agent = decisions(new_samples=4)
    agent.begin("digits", READY)
    assert not agent.are_as_new("digits", KNOWN)
    agent.version_ready("digits", START)
    assert not agent.are_as_new("digits", KNOWN)
    agent.ended("digits", 0, "spooled")
    assert agent.are_as_new("digits", KNOWN)


def test_what_a_failure_leaves_behind_is_not_as_new_until_a_later_version_has_made_up_for_it():
    agent = decisions(new_samples=4)
    agent.begin("digits", READY)
    agent.version_ready("digits", START)
    agent.diverged("digits", START)
    agent.failed("digits", KNOWN, 0.0, "diverged")
    agent.retry_deferred_trigger("digits")
    assert not agent.are_as_new("digits", KNOWN)
    agent.begin("digits", READY)
    agent.version_ready("digits", replace(START, version=4))
    agent.ended("digits", 0, "spooled")
    assert agent.are_as_new("digits", NEWER)
    assert not agent.are_as_new("digits", KNOWN), "that samples diverged from this version is still known"


@pytest.mark.parametrize(
    "change",
    [
        lambda agent: agent.not_enrolled("revoked"),
        lambda agent: agent.note("digits", Condition.ASKED),
        lambda agent: agent.update_spooled("digits", KNOWN, 0, 0.0, 5.0),
        lambda agent: agent.version_known("digits", KNOWN, NEWER, 0.0),
    ],
)
def test_what_a_new_process_would_not_know_is_not_as_new(change):
    agent = decisions()
    change(agent)
    assert not agent.are_as_new("digits", NEWER)
