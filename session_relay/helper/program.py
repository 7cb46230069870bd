"""The helper: wires sessions, the versions' processes and its membership of the fleet together."""

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.learning.round_spool import RoundSpool
from edge_agent.shell.membership import Membership
from edge_agent.shell.state_folder import open_state_without_samples
from fleet_protocol.task_description import TaskDescription, split_files
from session_relay.helper.configuration import HelperConfiguration
from session_relay.helper.life import live
from session_relay.helper.middle import blocks_of_helpers
from session_relay.helper.serving import Serving
from session_relay.helper.status import HelperStatus, StatusSocket


class Helper:
    """One helper of one fleet. `run` lasts until cancelled. What devices have taught since the last update of a version
    is lost then, as when the process is killed; updates that wait are not.

    Raises:
        ConfigurationError: the state folder or a database in it can't be used, or is another device's.
    """

    def __init__(self, configuration: HelperConfiguration, identity: Identity, software: str) -> None:
        self._configuration = configuration
        self._database, cache = open_state_without_samples(configuration)
        self._member = Membership(
            configuration,
            identity,
            software,
            self._database,
            cache,
            needed=_needed_files,
            also_hears=lambda: [identity.relayed_topic],
        )
        spool = RoundSpool(self._database, address=identity.address, sign=identity.sign_row)
        self._serving = Serving(configuration, self._member, spool)
        self._member.duty = self._member.sessions = self._serving
        self._socket = StatusSocket(configuration.sample_socket, self._status)

    async def run(self) -> None:
        """Keep the link, follow versions, serve sessions; until cancelled.

        Raises:
            ConfigurationError: the card has damaged `agent.db` meanwhile; what is lost, and what to do.
        """
        await live(self._member, self._serving, self._socket, lambda: self._serving.state)

    def _status(self) -> HelperStatus:
        return HelperStatus(
            helper=self._configuration.device,
            connected=self._member.link.connected,
            enrolled=self._database.is_enrolled(),
            sessions=self._serving.sessions,
            steps=self._serving.steps,
            versions=self._serving.versions,
            trouble=self._serving.trouble,
            waiting_updates=self._database.waiting(),
            accepted_updates=self._member.postbox.accepted,
            rejected_updates=self._member.postbox.rejected,
        )


def _needed_files(task: TaskDescription) -> list[str]:
    """The graphs of every block that a cut gives to a helper."""
    return sorted(split_files(task, blocks_of_helpers(task.split))) if task.split else []
