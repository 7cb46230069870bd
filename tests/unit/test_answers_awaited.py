"""Silence and receipts of others show after some messages, and not for every lost packet."""

from edge_agent.core.answers_awaited import FOREIGN_THAT_SHOW, UNANSWERED_THAT_SHOW, AnswersAwaited
from edge_agent.core.delivery import FIRST_RECEIPT_SECONDS
from edge_agent.core.enrolment import EnrolmentAttempts


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
