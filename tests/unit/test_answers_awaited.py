"""Silence and receipts of others show after some messages, and not for every lost packet."""

from edge_agent.core.answers_awaited import FOREIGN_THAT_SHOW, UNANSWERED_THAT_SHOW, AnswersAwaited
from edge_agent.core.delivery import FIRST_RECEIPT_SECONDS
from edge_agent.core.enrolment import MAX_UNANSWERED, Answer, EnrolmentAttempts
from fleet_protocol.kinds import Outcome, Receipt


def test_silence_shows_once_after_several_messages():
    answers = AnswersAwaited()
    shown = [answers.sent() for _ in range(100)]
    assert [number for number, shows in enumerate(shown, 1) if shows] == [UNANSWERED_THAT_SHOW]


def test_each_answer_begins_anew():
    answers = AnswersAwaited()
    for _ in range(100):
        assert not any(answers.sent() for _ in range(UNANSWERED_THAT_SHOW - 1))
        answers.answered()


def test_silence_shows_within_half_a_minute_of_enrolling():
    attempts = EnrolmentAttempts()
    assert sum(attempts.sent(bytes([number])) for number in range(UNANSWERED_THAT_SHOW - 1)) < 30
    assert (2 ** (UNANSWERED_THAT_SHOW - 1) - 1) * FIRST_RECEIPT_SECONDS < 90


def test_receipts_for_messages_of_another_show_and_repetitions_of_one_do_not():
    answers = AnswersAwaited()
    assert not any(answers.foreign(b"of a former life") for _ in range(100))
    assert [answers.foreign(bytes([number])) for number in range(FOREIGN_THAT_SHOW - 1)][-1]


def test_device_that_waits_for_its_approval_for_months_knows_its_newest_enrolments_alone():
    attempts = EnrolmentAttempts()
    digests = [number.to_bytes(32) for number in range(2 * MAX_UNANSWERED)]
    for digest in digests:
        attempts.sent(digest)
    answers = [attempts.receive(Receipt(digest, Outcome.REJECTED, "not_approved", "", 0, 0)) for digest in digests]
    assert answers == [Answer.NOT_OURS] * MAX_UNANSWERED + [Answer.REFUSED] * MAX_UNANSWERED
