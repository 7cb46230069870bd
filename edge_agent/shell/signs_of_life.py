"""Tells systemd that the agent serves, and that it goes on: its event loop turns, and no round outlives its limit.

A lost network, a guard that refuses or a coordinator that is silent is no reason for a restart, which would mend none.
"""

import asyncio
import logging
from collections.abc import Callable

from fleet_host.log_lines import log_line
from fleet_host.service_manager import ServiceManager

logger = logging.getLogger(__name__)


class SignsOfLife:
    """`round_ends_by` is when, on the event loop's clock, the round that runs must have ended; None: none runs.

    `words` say how the agent is doing.
    """

    def __init__(
        self, manager: ServiceManager, *, round_ends_by: Callable[[], float | None], words: Callable[[], str]
    ) -> None:
        self._manager = manager
        self._round_ends_by = round_ends_by
        self._words = words

    async def run(self, listens: asyncio.Event) -> None:
        """The agent serves once it `listens`; then give signs until cancelled, where anybody waits for them."""
        await listens.wait()
        self._manager.ready()
        self._manager.status(self._words())
        if self._manager.sign_seconds is None:
            return
        while self._goes_on():
            self._manager.alive()
            await asyncio.sleep(self._manager.sign_seconds)
            self._manager.status(self._words())
        logger.error(log_line("round_overdue", remedy="none: systemd starts the agent again, and the round with it"))

    def _goes_on(self) -> bool:
        ends_by = self._round_ends_by()
        return ends_by is None or asyncio.get_running_loop().time() < ends_by
