"""Carries the outbox to the coordinator and acts on its receipts. An update leaves only on a signed receipt."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from edge_agent.shell.device_database import DeviceDatabase, OutboxRow, SignUpdate
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, Receipt

log = logging.getLogger(__name__)

FIRST_RECEIPT_SECONDS = 10.0
LAST_RECEIPT_SECONDS = 600.0
"""How long to wait for a receipt before an update is sent again; doubles from first to last while none comes."""
PUT_OFF_SECONDS = 60.0
"""How often a device asks again that was told to wait: not approved yet, its task paused, or too many updates."""


class Remedy(Enum):
    """What to do with a rejected update."""

    RETURN_TO_RESIDUAL = "return to residual"
    KEEP = "keep"
    RENUMBER = "renumber"


REMEDIES = {
    Reason.UNKNOWN_KEY: Remedy.KEEP,  # until an operator has approved this device
    Reason.REVOKED_KEY: Remedy.KEEP,
    Reason.BAD_SIGNATURE: Remedy.KEEP,  # these two are not journalled either: taken back, a replay could count twice
    Reason.WRONG_TOPIC: Remedy.KEEP,
    Reason.TASK_PAUSED: Remedy.KEEP,  # until the operator resumes it
    Reason.RATE_LIMITED: Remedy.KEEP,
    Reason.SEQUENCE_REUSED: Remedy.RENUMBER,  # this device's memory is younger than its name
}
"""For every other reason the update goes back into the residual."""


@dataclass(slots=True)
class _Sending:
    """When a waiting update is sent next, in the event loop's time, and how long to wait for its receipt after that."""

    due: float = 0.0
    patience: float = FIRST_RECEIPT_SECONDS


class Postbox:
    """The sending side. `notify` wakes it when there is something new to send."""

    def __init__(self, database: DeviceDatabase, sign: SignUpdate, publish: Callable[[bytes], Awaitable[None]]) -> None:
        self._database = database
        self._sign = sign
        self._publish = publish
        self._changed = asyncio.Event()
        self._put_off = False
        self.accepted = 0
        self.rejected = 0

    def notify(self) -> None:
        """The outbox has changed."""
        self._changed.set()

    async def deliver(self) -> None:
        """Send everything that waits, and again whatever gets no receipt; runs for one connection.

        Raises:
            LinkDownError: from `publish`; the rows stay.
        """
        clock = asyncio.get_running_loop().time
        sendings: dict[bytes, _Sending] = {}
        while True:
            self._changed.clear()
            waiting = self._database.outbox()
            sendings = {row.digest: sendings.get(row.digest) or _Sending() for row in waiting}
            for row in waiting:
                sending = sendings[row.digest]
                if sending.due <= clock():
                    await self._publish(row.envelope)
                    sending.due = clock() + sending.patience
                    sending.patience = min(2 * sending.patience, LAST_RECEIPT_SECONDS)
            earliest = min((sending.due for sending in sendings.values()), default=None)  # empty outbox: no timer
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(earliest):  # not wait_for: before Python 3.12 it may lose a cancellation
                    await self._changed.wait()
                self._grow_impatient(sendings.values(), clock())

    def _grow_impatient(self, sendings: Iterable[_Sending], now: float) -> None:
        """Something moved, so whoever was silent may listen again. A change never puts off what is due before."""
        patience = PUT_OFF_SECONDS if self._put_off else FIRST_RECEIPT_SECONDS
        for sending in sendings:
            sending.patience = patience
            sending.due = min(sending.due, now + patience)

    def receive(self, receipt: Receipt) -> bool:
        """Act on a verified receipt; False where it is for none of the waiting updates."""
        row = self._database.find(receipt.digest)
        if row is None:
            return False
        if receipt.outcome is Outcome.ACCEPTED:
            self._put_off = False
            self.accepted += 1
            self._database.settle(row, Outcome.ACCEPTED, "")
        else:
            self._handle_rejection(row, receipt)
        self.notify()
        return True

    def _handle_rejection(self, row: OutboxRow, receipt: Receipt) -> None:
        reasons = {reason.value: reason for reason in Reason}
        remedy = Remedy.RETURN_TO_RESIDUAL
        if receipt.reason in reasons:
            remedy = REMEDIES.get(reasons[receipt.reason], remedy)
        log.warning(
            "event=update_rejected sequence=%d reason=%s remedy=%r detail=%r",
            row.sequence,
            receipt.reason,
            remedy.value,
            receipt.detail,
        )
        self._put_off = remedy is Remedy.KEEP
        if remedy is Remedy.RENUMBER:
            self._database.renumber(row, receipt.highest_sequence, self._sign)
        elif remedy is Remedy.RETURN_TO_RESIDUAL:
            self.rejected += 1
            self._database.settle(row, Outcome.REJECTED, receipt.reason)
