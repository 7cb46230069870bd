"""Carries the outbox to the coordinator and acts on its receipts; `core.delivery` decides when, and what they mean."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from edge_agent.core.delivery import DeliverySchedule, Remedy, remedy
from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.producers import PRODUCERS
from edge_agent.shell.device_database import DeviceDatabase
from fleet_host.log_lines import log_line
from fleet_protocol.envelope import digest
from fleet_protocol.kinds import KINDS, Receipt

log = logging.getLogger(__name__)


class Postbox:
    """The sending side. `notify` wakes it when there is something new to send."""

    def __init__(self, database: DeviceDatabase, sign: SignRow, publish: Callable[[bytes], Awaitable[None]]) -> None:
        self._database = database
        self._sign = sign
        self._publish = publish
        self._schedule = DeliverySchedule()
        self._changed = asyncio.Event()
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
        self._schedule.connected()
        while True:
            self._changed.clear()
            for number in self._schedule.due(self._database.waiting_numbers(), clock()):
                if envelope := self._envelope(number):
                    await self._publish(envelope)
                self._schedule.sent(number, clock())
            with contextlib.suppress(TimeoutError):
                # An empty outbox sets no timer. Not wait_for: before Python 3.12 it may lose a cancellation.
                async with asyncio.timeout_at(self._schedule.next_due):
                    await self._changed.wait()
                self._schedule.changed(clock())

    def receive(self, receipt: Receipt) -> bool:
        """Act on a verified receipt; False where it is for nothing that waits."""
        row = self._database.find(receipt.digest)
        if row is None:
            return False
        meant = remedy(receipt)
        self._schedule.answered(meant)
        if meant is Remedy.SETTLE:
            self.accepted += 1
        else:
            log.warning(
                log_line(
                    "update_rejected",
                    sequence=row.sequence,
                    reason=receipt.reason,
                    remedy=meant.value,
                    detail=receipt.detail,
                )
            )
        if meant is Remedy.TAKE_BACK:
            self.rejected += 1
        self._apply(meant, row, receipt)
        self.notify()
        return True

    def _apply(self, meant: Remedy, row: OutboxRow, receipt: Receipt) -> None:
        if meant is Remedy.RENUMBER:
            self._database.renumber(row, receipt.highest_sequence, self._sign)
        elif meant is Remedy.SETTLE:
            self._database.settle(row, receipt.outcome, "")
        elif meant is Remedy.TAKE_BACK:
            producer = PRODUCERS[KINDS[row.kind].opened.number]
            self._database.settle(row, receipt.outcome, receipt.reason, returned=producer.returns_to_residual)

    def _envelope(self, number: int) -> bytes:
        """The very bytes that the row's digest names; empty where it has its receipt, or they can't be made again.

        Other bytes under the same number might be applied a second time. So a row stays unsent for as long as this
        device has another key or topic than the one that the row was signed with, or does not know its kind.
        """
        row = self._database.read(number)
        if row is None:
            return b""
        envelope = row.envelope or (self._sign(row) if row.kind in KINDS else b"")
        if envelope and digest(envelope) == row.digest:
            return envelope
        log.error(
            log_line(
                "update_not_sent",
                sequence=number,
                kind=row.kind,
                error="it was signed with another key, shard or device name, or is of a kind that is not installed",
                remedy="put that back",
            )
        )
        return b""
