"""Rounds that a helper takes part in: what comes from the relay reaches the session of the round that runs."""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

from edge_agent.core.left_out_helpers import LeftOutHelpers
from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.helped_round import HelpedRound
from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_host.log_lines import log_line
from fleet_protocol.sessions.events import Wanted
from fleet_protocol.split_plan import Cut

logger = logging.getLogger(__name__)


class HelpedRounds:
    """At most one at a time, as there is one round at a time. `settings` are those of each task."""

    def __init__(self, identity: Identity, link: Link, settings: Mapping[str, SplitSettings]) -> None:
        self._identity = identity
        self._link = link
        self._settings = settings
        self._left_out = LeftOutHelpers()
        self._round: HelpedRound | None = None

    def relayed(self, data: bytes) -> None:
        """Something has come from the relay. What comes between two rounds is of a session that is over."""
        if self._round is not None:
            self._round.relayed(data)

    def connected(self) -> None:
        """The connection to the broker is there."""
        if self._round is not None:
            self._round.connected()

    def key_changed(self) -> None:
        """The coordinator has another key: the session that is open goes silent, and the next one begins with it."""

    def moved(self) -> None:
        """The session that is open goes on under the shard where it began, and the next one begins where this is."""

    @contextlib.asynccontextmanager
    async def session(self, version: ReadyVersion, cut: Cut, samples: int) -> AsyncIterator[HelpedRound]:
        """A helper for the length of a block, over reconnects too; where it goes, another one. The round is on so many
        `samples`, which count for what the helper learns.

        Raises:
            NoHelperError: none takes part now.
            LinkDownError: there is no connection.
        """
        task = version.description.task
        bundle = bytes.fromhex(version.bundle)
        wanted = Wanted(task, bundle, cut.name, version.number, version.generation, samples, cluster=version.cluster)
        async with self._link.listening_to(self._identity.relayed_topic):
            settings = self._settings.get(task, SplitSettings())
            self._round = HelpedRound(self._identity, self._link, wanted, settings, self._left_out)
            try:
                await self._round.open()
                logger.info(log_line("helper_found", task=task, helper=self._round.helper, cut=cut.name))
                yield self._round
            finally:
                ended, self._round = self._round, None
                await ended.close()
