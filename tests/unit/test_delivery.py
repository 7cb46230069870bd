"""Delivery, pure: whatever happens, what waits is sent, and repeated no sooner than its wait allows."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.core.delivery import (
    AWAITING_SECONDS,
    FIRST_RECEIPT_SECONDS,
    LAST_RECEIPT_SECONDS,
    PUT_OFF_SECONDS,
    REMEDIES,
    DeliverySchedule,
    Remedy,
    remedy,
)
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, Receipt


def receipt(outcome: Outcome, reason: str = "") -> Receipt:
    return Receipt(bytes(16), outcome, reason, "", 0, 1)


def test_accepted_settles():
    assert remedy(receipt(Outcome.ACCEPTED)) is Remedy.SETTLE


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_of_a_rejection_has_its_remedy(reason):
    assert remedy(receipt(Outcome.REJECTED, reason.value)) is REMEDIES.get(reason, Remedy.TAKE_BACK)


def test_reason_that_this_release_does_not_know_takes_the_payload_back():
    assert remedy(receipt(Outcome.REJECTED, "a_reason_of_next_year")) is Remedy.TAKE_BACK


def test_nothing_that_is_not_journalled_is_taken_back():
    kept = {reason for reason in Reason if remedy(receipt(Outcome.REJECTED, reason.value)) is Remedy.KEEP}
    assert kept == {
        Reason.UNKNOWN_KEY,
        Reason.REVOKED_KEY,
        Reason.BAD_SIGNATURE,
        Reason.WRONG_TOPIC,
        Reason.TASK_PAUSED,
        Reason.UNKNOWN_KIND,
        Reason.RATE_LIMITED,
    }


def test_what_awaits_its_cohort_is_asked_about_soon_where_that_is_settled_and_else_hardly_ever():
    schedule = DeliverySchedule()
    for number in schedule.due([1, 2], 0.0):
        schedule.sent(number, 0.0)
        schedule.awaits(number, 1.0)
    assert schedule.awaiting == [1, 2]
    schedule.ask_soon(2, 5.0)
    schedule.changed(5.0)
    assert schedule.awaiting == [1]
    assert schedule.due([1, 2], 5.0 + FIRST_RECEIPT_SECONDS) == [2]
    assert schedule.due([1], 1.0 + AWAITING_SECONDS) == [1]


def test_without_receipts_patience_doubles_up_to_its_limit():
    schedule, now, pauses = DeliverySchedule(), 0.0, []
    for _ in range(9):
        assert schedule.due([1], now) == [1]
        schedule.sent(1, now)
        pauses.append(schedule.next_due - now)
        now = schedule.next_due
    assert pauses == [min(FIRST_RECEIPT_SECONDS * 2**number, LAST_RECEIPT_SECONDS) for number in range(9)]


def test_device_that_was_told_to_wait_asks_once_a_minute_until_it_is_accepted():
    schedule = DeliverySchedule()
    schedule.due([1, 2], 0.0)
    for number in (1, 2):
        schedule.sent(number, 0.0)
    schedule.answered(Remedy.KEEP)
    schedule.changed(1.0)
    assert schedule.due([1, 2], FIRST_RECEIPT_SECONDS) == [1, 2], "a change never puts off what is due before"
    schedule.sent(1, FIRST_RECEIPT_SECONDS)
    assert schedule.due([1, 2], FIRST_RECEIPT_SECONDS + PUT_OFF_SECONDS - 1) == [2]
    schedule.answered(Remedy.SETTLE)
    schedule.changed(100.0)
    assert schedule.due([1], 100.0 + FIRST_RECEIPT_SECONDS) == [1]


def test_what_awaits_its_cohort_is_asked_about_once_an_hour_whatever_else_happens_and_at_each_connection():
    schedule = DeliverySchedule()
    schedule.due([1, 2], 0.0)
    schedule.sent(1, 0.0)
    schedule.awaits(1, 1.0)
    schedule.answered(Remedy.AWAIT)
    for now in (2.0, 50.0, 3000.0):
        schedule.changed(now)
    assert schedule.due([1], AWAITING_SECONDS) == []
    assert schedule.due([1], 1.0 + AWAITING_SECONDS) == [1]
    schedule.sent(1, 1.0 + AWAITING_SECONDS)
    assert schedule.due([1], 1.0 + AWAITING_SECONDS + FIRST_RECEIPT_SECONDS) == [1], "the answer may be lost too"
    schedule.awaits(1, 9000.0)
    schedule.restart()
    assert schedule.due([1], 9001.0) == [1]


class Deliveries(RuleBasedStateMachine):
    """An outbox that fills and empties, connections that come and go, and receipts of any meaning."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = DeliverySchedule()
        self.now = 0.0
        self.waiting: list[int] = []
        self.last_sent: dict[int, float] = {}
        self.spooled = 0

    @rule()
    def spool(self) -> None:
        self.spooled += 1
        self.waiting.append(self.spooled)
        self.schedule.changed(self.now)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), meant=st.sampled_from(Remedy))
    def receive_receipt(self, data, meant) -> None:
        number = data.draw(st.sampled_from(self.waiting))
        if meant is not Remedy.KEEP:
            self.waiting.remove(number)
        if meant is Remedy.RENUMBER:
            self.spooled += 1
            self.waiting.append(self.spooled)
        self.schedule.answered(meant)
        self.schedule.changed(self.now)

    @rule(seconds=st.floats(0.1, 2000))
    def wait(self, seconds) -> None:
        self.now += seconds

    @rule()
    def connect(self) -> None:
        self.schedule.restart()
        self.last_sent.clear()

    @rule()
    def send(self) -> None:
        for number in self.schedule.due(self.waiting, self.now):
            before = self.last_sent.get(number)
            assert before is None or self.now - before >= FIRST_RECEIPT_SECONDS
            self.schedule.sent(number, self.now)
            self.last_sent[number] = self.now
        assert set(self.waiting) <= self.last_sent.keys(), "everything was sent on this connection"
        assert all(self.now - self.last_sent[number] < LAST_RECEIPT_SECONDS for number in self.waiting)
        assert (self.schedule.next_due is None) == (not self.waiting), "an empty outbox sets no timer"

    @invariant()
    def is_never_due_too_late(self) -> None:
        due = self.schedule.next_due
        assert due is None or due <= self.now + LAST_RECEIPT_SECONDS


TestDeliveries = Deliveries.TestCase


def test_restart_while_a_payload_is_being_sent_sends_it_once_more() -> None:
    schedule = DeliverySchedule()
    assert schedule.due([1], 0.0) == [1]
    schedule.restart()
    schedule.sent(1, 0.5)
    assert schedule.due([1], 0.5) == [1]
