"""Which cluster each device of a task is in (docs/clusters.md)."""

from collections.abc import Mapping

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select

from broker_coordinator.storage.change_counters import CLUSTERS, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import clusters
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription

ByDevice = dict[str, int]


class ClusterRegistry:
    """Assigns devices to clusters, by name. A running coordinator notices (`change_counters`).

    Every method raises JournalUnavailableError where the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def assigned(self) -> dict[str, ByDevice]:
        """By task, the clusters of the devices that are in one."""
        found: dict[str, ByDevice] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(select(clusters).order_by(clusters.c.task, clusters.c.device)):
                found.setdefault(row.task, {})[row.device] = row.cluster
        return found

    def assign(self, task: TaskDescription, wanted: Mapping[str, int]) -> None:
        """Put devices into clusters, all of them or none; `NO_CLUSTER` takes one out. Others stay where they are.

        Raises:
            ConfigurationError: the task has no clusters, or fewer.
        """
        check_has(task, *wanted.values())
        with writing(self._engine) as connection:
            changed = _changed(connection, task.task, wanted)
            if not changed:
                return
            one = clusters.c.task == task.task, clusters.c.device == bindparam("left")
            connection.execute(delete(clusters).where(*one), [{"left": device} for device in changed])
            rows = [
                {"task": task.task, "device": device, "cluster": cluster}
                for device, cluster in changed.items()
                if cluster != NO_CLUSTER
            ]
            if rows:
                connection.execute(insert(clusters), rows)
            count_up(connection, CLUSTERS)


def check_has(task: TaskDescription, *wanted: int) -> None:
    """Raise `ConfigurationError` if the task does not have each of the clusters."""
    if task.clusters is None:
        raise ConfigurationError(
            f"task {task.task!r} has one model for all devices; export it with [clusters] in task.toml, and publish"
            " that: broker-coordinator tasks publish"
        )
    for cluster in wanted:
        if not NO_CLUSTER <= cluster <= task.clusters.most:
            raise ConfigurationError(
                f"task {task.task!r} has no cluster {cluster}: it has 1 to {task.clusters.most} (clusters.most), and"
                f" {NO_CLUSTER} is none"
            )


def _changed(connection: Connection, task: str, wanted: Mapping[str, int]) -> ByDevice:
    """Those of `wanted` that are not so."""
    query = select(clusters.c.device, clusters.c.cluster).where(clusters.c.task == task)
    now = {row.device: row.cluster for row in connection.execute(query)}
    return {device: cluster for device, cluster in wanted.items() if now.get(device, NO_CLUSTER) != cluster}
