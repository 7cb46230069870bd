"""Introduces the device until the coordinator has said yes: its word, or ours, may get lost on the way."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from edge_agent.shell.device_database import DeviceDatabase
from fleet_protocol.envelope import digest
from fleet_protocol.kinds import Outcome, Receipt

log = logging.getLogger(__name__)

FIRST_ANSWER_SECONDS = 2.0
LAST_ANSWER_SECONDS = 60.0
"""How long to wait for an answer, or for an operator's approval, before asking again; doubles from first to last."""


class EnrolmentKeeper:
    """`sign` makes a new signed introduction, `publish` sends it; `welcome` follows when the device is known."""

    def __init__(
        self,
        database: DeviceDatabase,
        *,
        sign: Callable[[], bytes],
        publish: Callable[[bytes], Awaitable[None]],
        welcome: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._sign = sign
        self._publish = publish
        self._welcome = welcome
        self._changed = asyncio.Event()
        self._asked: set[bytes] = set()

    async def keep(self) -> None:
        """Ask while the device is not enrolled; runs for one connection.

        Raises:
            LinkDownError: from `publish`.
        """
        patience = FIRST_ANSWER_SECONDS
        while True:
            self._changed.clear()
            if self._database.is_enrolled():
                patience = FIRST_ANSWER_SECONDS
                await self._welcome()
                await self._changed.wait()
                continue
            signed = self._sign()
            self._asked.add(digest(signed))
            await self._publish(signed)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._changed.wait()
            patience = min(2 * patience, LAST_ANSWER_SECONDS)

    def receive(self, receipt: Receipt) -> bool:
        """Act on a verified receipt; False where it is for none of our introductions."""
        if receipt.digest not in self._asked:
            return False
        if receipt.outcome is Outcome.ACCEPTED:
            log.info("event=enrolled")
            self._asked.clear()
            self._database.set_enrolled(True)
            self._changed.set()
        else:
            log.warning("event=enrolment_refused reason=%s detail=%r", receipt.reason, receipt.detail)
        return True

    def forgotten(self) -> None:
        """The coordinator does not know our key: introduce the device again."""
        if self._database.is_enrolled():
            self._database.set_enrolled(False)
            self._changed.set()
