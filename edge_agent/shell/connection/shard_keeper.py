"""Moves the device to its shard once a verified manifest names the fleet's shards; `core.shard_choice` decides when.

Where the device is, is on the disk before it connects anew: killed at any moment, it begins where it was or where it
went, and what the shard that it left still retains of it is taken back then.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection

from edge_agent.core.shard_choice import ShardChoice
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link, LinkLeftError
from edge_agent.shell.storage.own_shard import OwnShard
from fleet_host.log_lines import log_line

RETRY_SECONDS = 60.0
"""A move that the card did not take is tried again after this."""

logger = logging.getLogger(__name__)


class ShardKeeper:
    """Keeps `identity` in the shard that `own` has stored; `moved` is called once it speaks under another one."""

    def __init__(self, identity: Identity, own: OwnShard, link: Link, *, moved: Callable[[], None]) -> None:
        self._identity = identity
        self._own = own
        self._link = link
        self._moved = moved
        self._choice = ShardChoice(identity.device, identity.shard)
        self._changed = asyncio.Event()

    def hear(self, shards: Collection[str]) -> None:
        """The manifest of a newest version has named the fleet's shards, or none."""
        if self._choice.hear(shards):
            self._changed.set()

    async def keep(self) -> None:
        """Move when it is time; for as long as a connection lasts.

        Raises:
            LinkLeftError: the device has moved.
            LinkDownError: the connection has ended.
        """
        if came_from := self._own.came_from:
            await self._link.publish(self._identity.state_topic_in(came_from), b"", retain=True)
            with contextlib.suppress(sqlite3.Error):  # a full card: it is taken back again with the next connection
                self._own.forget_came_from()
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            due_at = self._choice.due_at
            if due_at is not None and due_at <= clock():
                await self._move(clock())
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    await self._changed.wait()

    async def _move(self, now: float) -> None:
        before, shard = self._identity.shard, self._choice.wanted
        try:
            place = self._own.move(shard)
        except (sqlite3.Error, OSError) as error:
            logger.error(log_line("shard_not_stored", shard=shard, error=error, remedy="make room on the disk"))
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._choice.moved(now)
        self._identity.move(place)
        self._moved()
        logger.info(log_line("shard_changed", before=before, now=shard))
        raise LinkLeftError(f"moved from shard {before} to {shard}")
