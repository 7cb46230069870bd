"""Sends the outbox to the coordinator; `core.delivery` decides when, and what receipts mean."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable

from edge_agent.core.cohort_news import is_settled
from edge_agent.core.delivery import Delivery, NotSendableError, Remedy, continued_after
from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.producers import goes_back
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Manifest, Receipt

logger = logging.getLogger(__name__)


def ignore_answer(_row: OutboxRow, _receipt: Receipt) -> None:
    """Ignore it."""


class Postbox:
    """The sending side. `notify` wakes it when there is something new to send."""

    def __init__(
        self,
        database: DeviceDatabase,
        sign: SignRow,
        publish: Callable[[bytes], Awaitable[None]],
        *,
        answered: Callable[[OutboxRow, Receipt], None] = ignore_answer,
    ) -> None:
        """`answered` hears of every receipt for something that waits."""
        self._database = database
        self._delivery = Delivery(database, sign, goes_back)
        self._publish = publish
        self._answered = answered
        self._changed = asyncio.Event()
        self.accepted = 0
        self.rejected = 0

    def notify(self) -> None:
        """The outbox has changed."""
        self._changed.set()

    def send_all(self) -> None:
        """The coordinator takes this device's payloads from now on: send what waits, whenever it was due."""
        self._delivery.schedule.restart()
        self._changed.set()

    def manifest_changed(self, task: str, manifest: Manifest) -> None:
        """A verified manifest has news of a task: updates whose cohort it says is settled are asked about soon."""
        schedule = self._delivery.schedule
        for number in schedule.awaiting:
            row = self._database.read(number)
            if row is None or row.task != task:
                continue
            with contextlib.suppress(ProtocolError):  # damaged on the disk: it is asked about within the hour
                if is_settled(row, manifest):
                    schedule.ask_soon(number, asyncio.get_running_loop().time())
                    self._changed.set()

    async def deliver(self) -> None:
        """Send everything that waits, and repeat what gets no receipt; runs for one connection.

        Raises:
            LinkDownError: from `publish`; the rows stay.
        """
        clock = asyncio.get_running_loop().time
        schedule = self._delivery.schedule
        schedule.restart()
        while True:
            self._changed.clear()
            for number in self._delivery.due(clock()):
                await self._send(number)
                schedule.sent(number, clock())
            with contextlib.suppress(TimeoutError):
                # An empty outbox sets no timer. Not wait_for: before Python 3.12 it may lose a cancellation.
                async with asyncio.timeout_at(schedule.next_due):
                    await self._changed.wait()
                schedule.changed(clock())

    async def _send(self, number: int) -> None:
        try:
            envelope = self._delivery.envelope(number)
            self._database.note_sent(number)
        except (NotSendableError, sqlite3.Error, OSError) as error:
            logger.error(log_line("payload_not_sent", sequence=number, error=error))
            return
        if envelope:
            await self._publish(envelope)

    def receive(self, receipt: Receipt) -> bool:
        """Act on a verified receipt; False where it is for nothing that waits."""
        received = self._delivery.receive(receipt)
        if received is None:
            return False
        row, meant = received
        if meant is Remedy.AWAIT:
            self._delivery.schedule.awaits(row.sequence, asyncio.get_running_loop().time())
            logger.info(log_line("update_awaits_cohort", task=row.task, sequence=row.sequence))
        elif meant is Remedy.SETTLE:
            self.accepted += 1
        else:
            self.rejected += meant is Remedy.TAKE_BACK
            reason, detail = receipt.reason, receipt.detail
            logger.warning(
                log_line("payload_rejected", sequence=row.sequence, reason=reason, remedy=meant.value, detail=detail)
            )
            if meant is Remedy.RENUMBER and continued_after(receipt) < receipt.highest_sequence:
                logger.warning(log_line("receipt_number_ignored", highest_sequence=receipt.highest_sequence))
        self._answered(row, receipt)
        self.notify()
        return True
