"""`broker-coordinator tasks rollback`: going back to an old version."""

from broker_coordinator.aggregation.version import Version
from broker_coordinator.commands.gossip_told import require_versions
from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.serving.replay import require_memory
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry


def roll_back(journal: Journal, configuration: CoordinatorConfiguration, task: str, version: int) -> Version:
    """Make a new version with the weights and the optimiser's state of an old one.

    Raises:
        ConfigurationError: there is no such task or version, none is made of it, or what it needs is dropped.
        ProtocolError: an update that it remembers is encrypted for another key.
    """
    require_versions(TaskRegistry(journal.engine), task, "tasks rollback")
    description = TaskRegistry(journal.engine).bundle(task).description
    require_memory(journal, description, version, configuration.keys)
    return VersionRegistry(journal.engine).roll_back(task, version)
