"""Delivery: when a waiting payload is sent, how the wait grows, and what a receipt means. Pure.

Times are seconds on any clock that only grows. A payload leaves the outbox only on a signed receipt.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from edge_agent.core.outbox import Outbox, OutboxRow, SignRow
from fleet_protocol.envelope import digest
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import KINDS, Outcome, PayloadKind, Receipt
from fleet_protocol.limits import MAX_CONTINUED_SEQUENCE

FIRST_RECEIPT_SECONDS = 10.0
LAST_RECEIPT_SECONDS = 600.0
"""How long to wait for a receipt before a payload is sent again; doubles from first to last while none comes."""
PUT_OFF_SECONDS = 60.0
"""Interval of repeats after a receipt that says to wait: not approved yet, task paused, or too many updates."""


AWAITING_SECONDS = 3600.0
"""Interval of repeats of what the journal has, should the receipt that settles it be lost."""


class Remedy(Enum):
    """What a receipt means for the payload that it names."""

    SETTLE = "settle"
    """The journal has it: it leaves the outbox."""
    KEEP = "keep and ask later"
    AWAIT = "await"
    """The journal has it, and whether it counts comes with another receipt: it stays, and is hardly ever repeated."""
    RENUMBER = "renumber"
    """The coordinator has seen the number, from an earlier life of this device: send it under a new one."""
    TAKE_BACK = "take back"
    """It will never be applied: it leaves the outbox, and its producer says what becomes of it."""


REMEDIES = {
    Reason.UNKNOWN_KEY: Remedy.KEEP,  # until an operator has approved this device, which enrols (core.enrolment)
    Reason.REVOKED_KEY: Remedy.KEEP,
    Reason.BAD_SIGNATURE: Remedy.KEEP,  # these two are not journalled either: taken back, a replay could count twice
    Reason.WRONG_TOPIC: Remedy.KEEP,
    Reason.UNKNOWN_KIND: Remedy.KEEP,  # until the coordinator is updated; not journalled either
    Reason.TASK_PAUSED: Remedy.KEEP,  # until the operator resumes it
    Reason.RATE_LIMITED: Remedy.KEEP,
    Reason.AWAITS_COHORT: Remedy.AWAIT,
    Reason.SEQUENCE_REUSED: Remedy.RENUMBER,  # this device's database was emptied or restored
}
"""For a rejection. Every other reason, one of a later release too, means that the payload is taken back."""

TOO_LARGE = frozenset({Reason.OUT_OF_BOUNDS, Reason.NOT_FINITE})
"""An update that is rejected for one of these came of training that diverges: it is not learned again."""

_REASONS = {reason.value: reason for reason in Reason}


def remedy(receipt: Receipt) -> Remedy:
    """What to do with the payload that a verified receipt names."""
    if receipt.outcome is Outcome.ACCEPTED:
        return Remedy.SETTLE
    reason = _REASONS.get(receipt.reason)
    return Remedy.TAKE_BACK if reason is None else REMEDIES.get(reason, Remedy.TAKE_BACK)


def continued_after(receipt: Receipt) -> int:
    """The number behind which a renumbered payload goes; 0, so behind this device's own, where few would be left."""
    return receipt.highest_sequence if receipt.highest_sequence <= MAX_CONTINUED_SEQUENCE else 0


class NotSendableError(Exception):
    """A waiting payload can't be signed as before; says why, and what to do."""


@dataclass(slots=True)
class Retry:
    """When a payload is sent next, and how long to wait for its receipt after that."""

    due: float
    wait_seconds: float = FIRST_RECEIPT_SECONDS
    awaits: bool = False


class DeliverySchedule:
    """When each waiting payload, named by its sequence number, is sent."""

    __slots__ = ("_put_off", "_retries")

    def __init__(self) -> None:
        self._retries: dict[int, Retry] = {}
        self._put_off = False

    @property
    def next_due(self) -> float | None:
        """When `due` has something next; None while nothing waits."""
        return min((retry.due for retry in self._retries.values()), default=None)

    def restart(self) -> None:
        """Send everything that waits at once: there is a new connection, or the device was let in."""
        self._retries.clear()

    def due(self, waiting: Iterable[int], now: float) -> list[int]:
        """Which of the numbers in the outbox are to be sent now. One that is not there any more is forgotten."""
        self._retries = {number: self._retries.get(number) or Retry(now) for number in waiting}
        return [number for number, retry in self._retries.items() if retry.due <= now]

    def sent(self, number: int, now: float) -> None:
        """It was sent: wait for its receipt, longer each time. After a `restart` meanwhile it is sent once more."""
        retry = self._retries.get(number)
        if retry is None:
            return
        retry.awaits = False
        retry.due = now + retry.wait_seconds
        retry.wait_seconds = min(2 * retry.wait_seconds, LAST_RECEIPT_SECONDS)

    def answered(self, meant: Remedy) -> None:
        """A receipt has come: whether the coordinator takes this device's payloads, or told it to wait."""
        self._put_off = meant is Remedy.KEEP

    def awaits(self, number: int, now: float) -> None:
        """The journal has it: ask for what became of it after `AWAITING_SECONDS`, or when a connection begins."""
        self._retries[number] = Retry(now + AWAITING_SECONDS, awaits=True)

    @property
    def awaiting(self) -> list[int]:
        """The numbers of what the journal has and whose outcome is awaited."""
        return [number for number, retry in self._retries.items() if retry.awaits]

    def ask_soon(self, number: int, now: float) -> None:
        """Its outcome is there: ask for it where no receipt brings it in `FIRST_RECEIPT_SECONDS`."""
        self._retries[number] = Retry(now + FIRST_RECEIPT_SECONDS)

    def changed(self, now: float) -> None:
        """Retry after any receipt, or new payload. What is due earlier stays due then."""
        wait_seconds = PUT_OFF_SECONDS if self._put_off else FIRST_RECEIPT_SECONDS
        for retry in self._retries.values():
            if retry.awaits:
                continue
            retry.wait_seconds = wait_seconds
            retry.due = min(retry.due, now + wait_seconds)


class Delivery:
    """An outbox, emptied by receipts. The caller carries the bytes and keeps the timer for `schedule.next_due`.

    `goes_back` says of a kind whether a rejected payload waits for the next round, which takes it back.
    """

    __slots__ = ("_goes_back", "_outbox", "_sign", "schedule")

    def __init__(self, outbox: Outbox, sign: SignRow, goes_back: Callable[[PayloadKind], bool]) -> None:
        self._outbox = outbox
        self._sign = sign
        self._goes_back = goes_back
        self.schedule = DeliverySchedule()

    def due(self, now: float) -> list[int]:
        """The numbers of what is to be sent now."""
        return self.schedule.due(self._outbox.waiting_numbers(), now)

    def envelope(self, number: int) -> bytes:
        """What to send under a number: the very bytes that its receipt will name; empty where it has its receipt.

        Raises:
            NotSendableError: this device has another key or topic than the one that the payload was signed with, or
                does not know its kind. Other bytes under the same number might be applied a second time.
        """
        row = self._outbox.read(number)
        if row is None:
            return b""
        if row.kind not in KINDS:
            raise NotSendableError(f"kind {row.kind} is not installed; install what produced it")
        try:
            envelope = row.envelope or self._sign(row)
        except Exception as error:  # whatever a damaged row brings out must not hold up the others
            raise NotSendableError(f"its row in agent.db is damaged: {type(error).__name__}: {error}") from error
        if digest(envelope) != row.digest:
            raise NotSendableError("it was signed with another key or device name; put that back")
        return envelope

    def receive(self, receipt: Receipt) -> tuple[OutboxRow, Remedy] | None:
        """Act on a verified receipt: what it was for, and what was done. None where it is for nothing that waits."""
        row = self._outbox.find(receipt.digest)
        if row is None:
            return None
        if receipt.cluster is not None:  # before the payload is settled: killed in between, the receipt comes again
            self._outbox.set_cluster(row.task, receipt.cluster)
        meant = remedy(receipt)
        if meant is Remedy.SETTLE:
            self._outbox.settle(row, receipt.outcome, "")
        elif meant is Remedy.RENUMBER and row.kind in KINDS:
            self._outbox.renumber(row, continued_after(receipt), self._sign)
        elif meant is Remedy.TAKE_BACK:
            kind = KINDS.get(row.kind)
            returned = kind is not None and self._goes_back(kind.decrypted)
            self._outbox.settle(row, receipt.outcome, receipt.reason, returned=returned)
        self.schedule.answered(meant)
        return row, meant
