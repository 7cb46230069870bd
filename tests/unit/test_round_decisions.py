"""When a round begins, what puts it off, and that what diverged is not tried again from the same starting point."""

from edge_agent.core.enrolment import FIRST_ANSWER_SECONDS, LAST_ANSWER_SECONDS, Answer, EnrolmentAttempts
from edge_agent.core.guards import GuardSettings, Readings
from edge_agent.core.lifecycle import State
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint
from edge_agent.core.triggers import SampleTrigger, TriggerSettings
from fleet_protocol.kinds import Outcome, Receipt

START = StartingPoint(3, "0f" * 32, 40)
READY = Readings(stored_samples=16, waiting_updates=0, free_memory_mib=1000.0)


def decisions(new_samples: int = 0) -> RoundDecisions:
    return RoundDecisions(GuardSettings(), {"digits": SampleTrigger(TriggerSettings(4), new_samples)})


def test_agent_wakes_up_with_the_sample_that_fires_the_trigger():
    agent = decisions()
    assert [agent.samples_arrived("digits") for _ in range(5)] == [False, False, False, True, True]


def test_samples_that_came_before_a_restart_count():
    assert decisions(new_samples=4).is_due("digits")


def test_round_ends_with_the_samples_that_came_while_it_ran():
    agent = decisions(new_samples=4)
    assert agent.begin(READY) is None
    assert agent.state is State.FETCHING
    assert agent.version_ready("digits", START) is None
    agent.samples_arrived("digits", 3)
    agent.spooled("digits", 3)
    assert (agent.state, agent.new_samples("digits"), agent.is_due("digits")) == (State.SLEEPING, 3, False)
    assert not agent.deferred


def test_trigger_that_was_put_off_waits_and_samples_do_not_wake_it():
    for put_off in (
        lambda agent: agent.begin(Readings(stored_samples=1, waiting_updates=0)),
        lambda agent: (agent.begin(READY), agent.version_unavailable()),
        lambda agent: (agent.begin(READY), agent.version_ready("digits", START), agent.failed()),
    ):
        agent = decisions(new_samples=4)
        put_off(agent)
        assert (agent.state, agent.deferred, agent.is_due("digits")) == (State.SLEEPING, True, True)
        assert not agent.samples_arrived("digits")
        agent.retry_deferred_trigger()
        assert agent.samples_arrived("digits")


def test_refusal_of_a_guard_is_said():
    assert "15 stored samples" in decisions(new_samples=4).begin(Readings(stored_samples=15, waiting_updates=0))


def test_what_diverged_is_tried_again_with_another_version_bundle_or_sample_only():
    agent = decisions(new_samples=4)
    agent.begin(READY)
    agent.version_ready("digits", START)
    agent.diverged("digits", START)
    agent.failed()
    for start, refused in (
        (START, True),
        (StartingPoint(4, START.bundle, 40), False),
        (StartingPoint(3, "f0" * 32, 40), False),
        (StartingPoint(3, START.bundle, 41), False),
        (START, True),
    ):
        agent.begin(READY)
        assert (agent.version_ready("digits", start) is not None) == refused
        if not refused:
            agent.failed()


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
