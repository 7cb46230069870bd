"""The helper where its configuration has `[masks]`: wires claims, requests and its membership of the fleet together."""

import logging

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.membership import Membership
from edge_agent.shell.state_folder import open_state_without_samples
from fleet_host.log_lines import log_line
from fleet_protocol.keys import write_verify_key
from fleet_protocol.kinds import MaskRequest
from session_relay.helper.configuration import HelperConfiguration, MaskHelperSettings
from session_relay.helper.life import live
from session_relay.helper.mask_claims import FILE_NAME, MaskClaims
from session_relay.helper.mask_serving import MaskServing
from session_relay.helper.status import HelperStatus, StatusSocket

logger = logging.getLogger(__name__)


class MaskHelperProgram:
    """One mask helper of one fleet. `run` lasts until cancelled; killed at any point, it answers as it did before.

    Raises:
        ConfigurationError: the state folder, or a file in it, can't be used or is damaged; or TenSEAL is not there, for
            a key holder.
    """

    def __init__(
        self, configuration: HelperConfiguration, settings: MaskHelperSettings, identity: Identity, software: str
    ) -> None:
        self._configuration = configuration
        self._claims = MaskClaims(configuration.state_folder / FILE_NAME)
        self._database, cache = open_state_without_samples(configuration)
        self._member = Membership(
            configuration,
            identity,
            software,
            self._database,
            cache,
            needed=lambda _: [],
            mask_request=self._asked,
        )
        self._serving = MaskServing(settings, self._member, self._claims)
        self._member.duty = self._member.sessions = self._serving
        self._socket = StatusSocket(configuration.sample_socket, self._status)

    async def run(self) -> None:
        """Keep the link and answer; until cancelled.

        Raises:
            ConfigurationError: the disk has damaged `agent.db` meanwhile; what is lost, and what to do.
        """
        logger.info(log_line("mask_helper", key=write_verify_key(self._claims.key.verify_key)))
        try:
            await live(self._member, self._serving, self._socket, lambda: self._words)
        finally:
            self._claims.close()

    def _asked(self, request: MaskRequest) -> None:
        self._serving.asked(request)

    @property
    def _words(self) -> str:
        return f"{self._serving.answered_requests} requests answered, {self._serving.refused_requests} refused"

    def _status(self) -> HelperStatus:
        return HelperStatus(
            helper=self._configuration.device,
            connected=self._member.link.connected,
            enrolled=self._database.is_enrolled(),
            sessions=0,
            steps=0,
            versions={},
            trouble={},
            waiting_updates=self._database.waiting(),
            accepted_updates=self._member.postbox.accepted,
            rejected_updates=self._member.postbox.rejected,
            mask_key=write_verify_key(self._claims.key.verify_key),
            answered_requests=self._serving.answered_requests,
            refused_requests=self._serving.refused_requests,
            ignored_requests=self._serving.ignored_requests,
        )
