"""Follows the coordinator to its next key: hears what the pinned one vouches for, and pins that."""

import logging
from collections.abc import Callable

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.connection.pinned_keys import PinnedKeys
from edge_agent.shell.connection.succession_listener import SuccessionListener
from fleet_host.log_lines import log_line
from fleet_protocol.keys import VerifyKey, key_id, write_verify_key

RETRY_SECONDS = 60.0
"""A key that the card did not take is asked for again after this."""

logger = logging.getLogger(__name__)


class KeyFollower:
    """Keeps `identity` at the newest of the `pinned` keys; `followed` is called when that has changed."""

    def __init__(self, pinned: PinnedKeys, identity: Identity, link: Link, *, followed: Callable[[], None]) -> None:
        self._pinned = pinned
        self._identity = identity
        self._followed = followed
        self._listener = SuccessionListener(link, lambda: identity.succession_topic)

    def receive(self, successor: VerifyKey) -> None:
        """Take what the pinned key has signed: that `successor` follows it.

        Raises:
            ProtocolError: no key that can be followed.
            OSError: it could not be written; it is asked for again.
        """
        self._identity.check_coordinator(successor)
        before = self._pinned.newest
        try:
            self._pinned.follow(successor)
        except OSError:
            self._listener.again(RETRY_SECONDS)
            raise
        self._identity.coordinator = successor
        logger.warning(
            log_line(
                "coordinator_key_followed",
                before=key_id(before).hex(),
                now=key_id(successor).hex(),
                remedy=f'coordinator_key = "{write_verify_key(successor)}" in agent.toml lets a new card start with it',
            )
        )
        self._listener.again()
        self._followed()

    async def keep(self) -> None:
        """Listen for what follows the pinned key, for as long as a connection lasts.

        Raises:
            LinkDownError: it has ended.
        """
        await self._listener.keep()
