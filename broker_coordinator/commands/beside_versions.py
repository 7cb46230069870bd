"""What runs beside the process that makes versions, and ends with it: evaluations, the relay, the dashboard."""

import logging
from pathlib import Path

from broker_coordinator.commands.dashboard_child import DashboardChild, dashboard_port
from broker_coordinator.commands.relay_child import RelayChild
from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.serving.cluster_finder import ClusterFinder
from broker_coordinator.serving.evaluator import Evaluator
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.variety_watch import VarietyWatch
from broker_coordinator.storage.journal import Journal
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

logger = logging.getLogger(__name__)


class BesideVersions:
    """Nothing until `start`. `file` is that of the configuration."""

    def __init__(self, file: Path, configuration: CoordinatorConfiguration, journal: Journal, metrics: Metrics) -> None:
        self._file = file
        self._configuration = configuration
        self._journal = journal
        self._metrics = metrics
        self._behind: list[Evaluator | ClusterFinder | VarietyWatch] = []
        self._children: list[RelayChild | DashboardChild] = []

    def start(self) -> None:
        """Start what is configured.

        Raises:
            ConfigurationError: the fleet has one shard, and there can be no dashboard as it is configured. Of several,
                whoever leads goes on without: it has begun to serve.
        """
        configuration = self._configuration
        dashboard = self._dashboard()
        every = {each.task: each.every for each in configuration.evaluations}
        self._behind += [
            Evaluator(self._file, every),
            ClusterFinder(self._file, self._journal),
            VarietyWatch(self._file, self._journal.engine, self._metrics),
        ]
        if configuration.relay.enabled:
            self._children.append(RelayChild(self._file, configuration.journal()))
        if dashboard:
            self._children.append(dashboard)

    def note_version(self, task: str, number: int) -> None:
        """A version is made."""
        for each in self._behind:
            each.note_version(task, number)

    def stop(self) -> None:
        """End all of it."""
        for each in (*self._behind, *self._children):
            each.stop()

    def _dashboard(self) -> DashboardChild | None:
        settings = self._configuration.dashboard
        if settings.port is None:
            return None
        try:
            return DashboardChild(self._file, dashboard_port(settings, settings.port))
        except ConfigurationError as error:
            if len(self._configuration.served_shards) == 1:
                raise
            logger.error(log_line("dashboard_not_opened", error=error))
            return None
