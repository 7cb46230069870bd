"""Enrols the device with its coordinator; `core.enrolment` decides when, and what receipts mean."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine

from edge_agent.core.enrolment import Answer, EnrolmentAttempts
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_host.log_lines import log_line
from fleet_protocol.envelope import digest
from fleet_protocol.kinds import Receipt

logger = logging.getLogger(__name__)

LET_IN_SECONDS = 60.0
"""A device that has just been let in does not enrol again sooner: somebody may replay an old refusal on and on."""


class EnrolmentKeeper:
    """`sign` makes a new signed enrolment, `publish` sends it; `while_enrolled` runs while the device is accepted."""

    def __init__(
        self,
        database: DeviceDatabase,
        *,
        sign: Callable[[], bytes],
        publish: Callable[[bytes], Awaitable[None]],
        while_enrolled: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        self._database = database
        self._sign = sign
        self._publish = publish
        self._while_enrolled = while_enrolled
        self._attempts = EnrolmentAttempts()
        self._changed = asyncio.Event()
        self._let_in_at = -math.inf

    async def keep(self) -> None:
        """Repeat enrolment until accepted, and after the coordinator has lost it; runs for one connection.

        Raises:
            LinkDownError: from `publish`.
        """
        self._attempts.start()
        while True:
            self._changed.clear()
            if self._database.is_enrolled():
                self._attempts.start()
                await self._stay_enrolled()
                continue
            signed = self._sign()
            wait_seconds = self._attempts.sent(digest(signed))
            await self._publish(signed)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._changed.wait()

    async def _stay_enrolled(self) -> None:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self._while_enrolled())
            await self._changed.wait()
            await asyncio.sleep(self._let_in_at + LET_IN_SECONDS - asyncio.get_running_loop().time())
            running.cancel()

    def receive(self, receipt: Receipt) -> bool:
        """Act on a verified receipt; False where it is for none of this device's enrolments."""
        answer = self._attempts.receive(receipt)
        if answer is Answer.ACCEPTED:
            logger.info(log_line("enrolled"))
            self._database.set_enrolled(True)
            self._let_in_at = asyncio.get_running_loop().time()
            self._changed.set()
        elif answer is Answer.REFUSED:
            logger.warning(log_line("enrolment_refused", reason=receipt.reason, detail=receipt.detail))
        return answer is not Answer.NOT_OURS

    def begin_anew(self) -> None:
        """The device has moved: another coordinator has to accept it, and an answer of the former one says nothing."""
        self._attempts = EnrolmentAttempts()
        self._let_in_at = -math.inf

    def enrol_again(self) -> None:
        """The coordinator does not know this device's key."""
        if self._database.is_enrolled():
            self._database.set_enrolled(False)
            self._changed.set()
