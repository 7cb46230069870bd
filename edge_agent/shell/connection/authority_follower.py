"""Follows the coordinator to the broker's next authorities: hears what takes the place of those that it trusts."""

import logging

from edge_agent.shell.connection.link import Link
from edge_agent.shell.connection.pinned_authorities import PinnedAuthorities
from edge_agent.shell.connection.succession_listener import SuccessionListener
from fleet_host.log_lines import log_line
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, Reason

RETRY_SECONDS = 60.0
"""Authorities that the card did not take are asked for again after this."""

logger = logging.getLogger(__name__)


class AuthorityFollower:
    """Keeps `link` at the newest of the `pinned` authorities; without TLS (None) there are none."""

    def __init__(self, fleet: str, pinned: PinnedAuthorities | None, link: Link) -> None:
        self._fleet = fleet
        self._pinned = pinned
        self._link = link
        self._listener = SuccessionListener(link, self._topic)

    def receive(self, topic: str, authorities: list[bytes]) -> None:
        """Take what the coordinator has signed: who is to be believed from the next connection on.

        Raises:
            ProtocolError: it is not for this device, or can't be followed.
            OSError: it could not be written; it is asked for again.
        """
        if self._pinned is None or topic != self._topic():
            raise ProtocolError(Reason.WRONG_TOPIC, "it does not follow the authorities that this device trusts")
        try:
            self._pinned.follow(authorities)
        except OSError:
            self._listener.again(RETRY_SECONDS)
            raise
        self._link.trust(self._pinned.file)
        logger.warning(
            log_line(
                "authorities_followed",
                now=self._pinned.newest.hex(),
                count=len(authorities),
                remedy="none; a card that is made anew joins with a new invitation",
            )
        )
        self._listener.again()

    def ask_again(self) -> None:
        """The coordinator has another key: what it signed with that was refused before."""
        self._listener.again()

    async def keep(self) -> None:
        """Listen for as long as a connection lasts.

        Raises:
            LinkDownError: it has ended.
        """
        if self._pinned is not None:
            await self._listener.keep()

    def _topic(self) -> str:
        assert self._pinned is not None  # noqa: S101 - only then is anything subscribed to
        return topics.authority_succession(self._fleet, self._pinned.newest)
