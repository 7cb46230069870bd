"""Which cluster each device of a task is in (docs/clusters.md)."""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select

from broker_coordinator.aggregation.clusters import without
from broker_coordinator.storage.change_counters import CLUSTERS, HELPERS, TASKS, change_counters_in, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import clusters, findings
from broker_coordinator.storage.task_conditions import first_version
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription

ByDevice = dict[str, int]


class Finding(msgspec.Struct, frozen=True):
    """What clusters were found by, when `version` was the newest: the `samples` behind each device's activation, how
    many `clusters` there were before any was left out as one too many, and whose activation was of no use, and why.
    Those of the devices that came later and were `placed` into these clusters have the version behind which they were.
    Where clusters are found by updates, `samples` counts these, and `kinds` are of `aggregation.clusters.Kinds`.
    `put` are the devices that are in a cluster by this finding or one before, of an earlier bundle even.
    """

    version: int
    samples: dict[str, int]
    clusters: int
    left_out: dict[str, str] = {}
    placed: dict[str, int] = {}
    kinds: dict[int, dict[str, bytes]] = {}
    put: tuple[str, ...] = ()

    def bears_newcomers(self, count: int) -> bool:
        """Whether so many devices more may be placed into its clusters: there are two at least, and all that came
        later are fewer than those that the clusters were found by.
        """
        return self.clusters > 1 and count + 2 * len(self.placed) < len(self.samples)

    def without(self, device: str) -> "Finding":
        """As if it had never known the device."""
        return msgspec.structs.replace(
            self,
            samples={name: rows for name, rows in self.samples.items() if name != device},
            left_out={name: why for name, why in self.left_out.items() if name != device},
            placed={name: version for name, version in self.placed.items() if name != device},
            kinds=without(self.kinds, device),
            put=tuple(name for name in self.put if name != device),
        )


Found = tuple[ByDevice, Finding]


class Stand(NamedTuple):
    """How things are when devices are compared: the clusters that they are in, what was found last, and how often
    operators have changed something that a comparison goes by.
    """

    clusters: ByDevice
    finding: Finding | None
    changes: Mapping[str, int]


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
            _assign(connection, task.task, wanted)

    def stand(self, task: str) -> Stand:
        """How things are with the clusters of a task now."""
        with reading(self._engine) as connection:
            return _stand(connection, task)

    def assign_found(self, task: TaskDescription, stand: Stand, wanted: ByDevice, finding: Finding) -> bool:
        """Put devices into the clusters that were found, and keep what they were found by, in one transaction. False,
        and nothing changes, where things are not as in `stand` any more.

        Raises:
            ConfigurationError: the task has no clusters, or fewer.
        """
        check_has(task, *wanted.values())
        with writing(self._engine) as connection:
            if _stand(connection, task.task) != stand:
                return False
            _assign(connection, task.task, wanted)
            last = _finding(connection, task.task, of_any_bundle=True)
            by_findings = {*wanted, *(last.put if last else ())}
            put = sorted(_now(connection, task.task).keys() & by_findings)
            _store(connection, task.task, msgspec.structs.replace(finding, put=tuple(put)))
            return True

    def finding(self, task: str) -> Finding | None:
        """What the clusters of the task's bundle were found by last; None where they never were, or it is damaged."""
        with reading(self._engine) as connection:
            return _finding(connection, task)


def leave_clusters(connection: Connection, device: str, task: str | None = None) -> None:
    """What was said of a device counts no more: it leaves the clusters that it was put into by that, of a task or of
    all, and is a newcomer when something is said of it again.
    """
    found_in = select(findings.c.task) if task is None else select(findings.c.task).where(findings.c.task == task)
    for each in connection.scalars(found_in).all():
        last = _finding(connection, each, of_any_bundle=True)
        if last is None:  # damaged: nobody knows by what it is in its cluster
            _assign(connection, each, {device: NO_CLUSTER})
        elif device in last.samples or device in last.put:
            _assign(connection, each, {device: NO_CLUSTER})
            _store(connection, each, last.without(device))


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


def _stand(connection: Connection, task: str) -> Stand:
    counted = change_counters_in(connection)
    changes = {subject: counted.get(subject, 0) for subject in (TASKS, HELPERS, CLUSTERS)}
    return Stand(_now(connection, task), _finding(connection, task), changes)


def _assign(connection: Connection, task: str, wanted: Mapping[str, int]) -> None:
    changed = _changed(connection, task, wanted)
    if not changed:
        return
    one = clusters.c.task == task, clusters.c.device == bindparam("left")
    connection.execute(delete(clusters).where(*one), [{"left": device} for device in changed])
    rows = [
        {"task": task, "device": device, "cluster": cluster}
        for device, cluster in changed.items()
        if cluster != NO_CLUSTER
    ]
    if rows:
        connection.execute(insert(clusters), rows)
    count_up(connection, CLUSTERS)


def _finding(connection: Connection, task: str, *, of_any_bundle: bool = False) -> Finding | None:
    of_bundle = [] if of_any_bundle else [findings.c.version >= first_version(task)]
    document = connection.scalar(select(findings.c.document).where(findings.c.task == task, *of_bundle))
    with suppress(msgspec.MsgspecError):  # a damaged row: clusters are found anew
        return msgspec.json.decode(document, type=Finding) if document else None
    return None


def _store(connection: Connection, task: str, finding: Finding) -> None:
    connection.execute(delete(findings).where(findings.c.task == task))
    document = msgspec.json.encode(finding).decode()
    connection.execute(insert(findings).values(task=task, version=finding.version, document=document))


def _now(connection: Connection, task: str) -> ByDevice:
    query = select(clusters.c.device, clusters.c.cluster).where(clusters.c.task == task)
    return {row.device: row.cluster for row in connection.execute(query)}


def _changed(connection: Connection, task: str, wanted: Mapping[str, int]) -> ByDevice:
    """Those of `wanted` that are not so."""
    now = _now(connection, task)
    return {device: cluster for device, cluster in wanted.items() if now.get(device, NO_CLUSTER) != cluster}
