"""What the coordinator counts, as Prometheus reads it on a port that the operator opens."""

import math
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from broker_coordinator.admission.decisions import (
    Accepted,
    AnsweredBefore,
    Decision,
    Enrolled,
    FileRequested,
    MaskReplied,
    PresenceSeen,
    Refused,
    Repeated,
)
from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.serving.served_task import ServedTask
from fleet_protocol.errors import ConfigurationError

STALENESS_BUCKETS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
COMMIT_SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

FILE_REQUEST, RECEIPT = "file_request", "receipt"
DROPPED = (FILE_REQUEST, RECEIPT)
"""What a limit may keep from being answered: see docs/operating.md."""


class Metrics:
    """Counts and gauges of one coordinator, in a registry of its own. Names follow Prometheus' conventions."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._messages = self._counter("edgeflock_messages", "Messages from devices", "outcome", "reason")
        self._staleness = Histogram(
            "edgeflock_update_staleness",
            "Versions made since the one that an accepted payload started from",
            ["task"],
            buckets=STALENESS_BUCKETS,
            registry=self.registry,
        )
        self._commit_seconds = Histogram(
            "edgeflock_commit_seconds",
            "Time to commit one batch to the journal",
            buckets=COMMIT_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._received = Counter("edgeflock_received_bytes", "Payload bytes from devices", registry=self.registry)
        self._published = Counter("edgeflock_published_bytes", "Payload bytes to devices", registry=self.registry)
        self._buffered = self._gauge("edgeflock_buffered_updates", "Updates that wait for the next version", "task")
        self._version = self._gauge("edgeflock_version", "Number of the newest version", "task")
        self._roster = self._gauge("edgeflock_roster_devices", "Devices that learn a task by gossip", "task")
        self._versions = self._counter("edgeflock_versions_made", "Versions made since the start", "task")
        self._void_cohorts = self._counter(
            "edgeflock_void_cohorts", "Cohorts of masked updates of which nothing came, since the start", "task"
        )
        self._collapses = self._counter(
            "edgeflock_training_collapses",
            "Times that training went back to the last good version, since the start",
            "task",
        )
        self._step = self._gauge(
            "edgeflock_server_step", "Factor on the server's learning rate, 1 without collapse", "task"
        )
        self._set_aside = self._counter(
            "edgeflock_payloads_set_aside", "Accepted payloads that can't be applied, since the start", "task"
        )
        self._held = self._counter(
            "edgeflock_updates_held", "Updates held in quarantine as suspicious, since the start", "task"
        )
        self._tempered = self._counter(
            "edgeflock_updates_tempered", "Suspicious updates that counted less, since the start", "task"
        )
        self._stopped = self._gauge("edgeflock_versions_stopped", "1 while an error stops them from being made", "task")
        self._paused = self._gauge("edgeflock_task_paused", "1 while the operator has paused the task", "task")
        self._drawn: dict[str, frozenset[int]] = {}
        self._variety = self._gauge(
            "edgeflock_drawn_variety", "How much the pictures of a class differ that a version draws", "task", "cluster"
        )
        self._devices = self._gauge("edgeflock_devices", "Keys of devices", "state")
        self._dropped = self._counter("edgeflock_dropped", "What a limit has kept from being answered", "what")
        for what in DROPPED:
            self._dropped.labels(what)
        self._database = self._gauge("edgeflock_database_bytes", "Size of the database; NaN while it can't be told")
        self._database.set(math.nan)

    def serve(self, address: str, port: int) -> None:
        """Answer Prometheus on a thread of its own.

        Raises:
            ConfigurationError: the port can't be opened.
        """
        try:
            start_http_server(port, address, self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"[metrics] {address}:{port}: {error.strerror}; choose another address or port"
            ) from error

    def watch_database(self, size: Callable[[], float]) -> None:
        """`size` is asked in the thread that answers Prometheus, whenever that asks."""
        self._database.set_function(size)

    def count_batch(
        self, decisions: Iterable[Decision], accepted: Sequence[Accepted], received_bytes: int, commit_seconds: float
    ) -> None:
        """Count a committed batch; `accepted` are those of its decisions."""
        for (outcome, reason), number in Tally(map(_outcome, decisions)).items():
            self._messages.labels(outcome, reason).inc(number)
        observe = {task: self._staleness.labels(task).observe for task in {each.header.task for each in accepted}}
        for each in accepted:
            observe[each.header.task](each.staleness)
        self._received.inc(received_bytes)
        self._commit_seconds.observe(commit_seconds)

    def count_published(self, number_of_bytes: int) -> None:
        """Count bytes that are about to be published."""
        self._published.inc(number_of_bytes)

    def count_dropped(self, what: str) -> None:
        """Count something that a limit keeps from being answered: one of `DROPPED`."""
        self._dropped.labels(what).inc()

    def count_version(self, task: str) -> None:
        """Count a committed version."""
        self._versions.labels(task).inc()

    def count_void_cohort(self, task: str) -> None:
        """Count a cohort of masked updates of which nothing came."""
        self._void_cohorts.labels(task).inc()

    def count_collapse(self, task: str) -> None:
        """Count a collapse of a task's training."""
        self._collapses.labels(task).inc()

    def count_set_aside(self, task: str, number: int) -> None:
        """Count payloads that are set aside."""
        self._set_aside.labels(task).inc(number)

    def count_held(self, task: str, number: int) -> None:
        """Count updates that are held in quarantine."""
        self._held.labels(task).inc(number)

    def count_tempered(self, task: str, number: int) -> None:
        """Count updates that are tempered."""
        self._tempered.labels(task).inc(number)

    def show_stopped(self, task: str, *, stopped: bool) -> None:
        """Whether an error keeps a task's versions from being made."""
        self._stopped.labels(task).set(stopped)

    def show_task(self, task: ServedTask) -> None:
        """How a task stands now."""
        name = task.description.task
        self._buffered.labels(name).set(len(task.waiting))
        self._version.labels(name).set(task.newest.number)
        self._paused.labels(name).set(task.paused)
        self._step.labels(name).set(task.state.step)

    def show_roster(self, task: str, devices: int) -> None:
        """How many devices learn a task by gossip."""
        self._roster.labels(task).set(devices)

    def forget_roster(self, task: str) -> None:
        """A task is no longer learned by gossip."""
        with suppress(KeyError):
            self._roster.remove(task)

    def show_variety(self, task: str, of_clusters: Mapping[int, float]) -> None:
        """What a version draws, by cluster; a cluster that has no devices any more is shown no longer."""
        for gone in self._drawn.get(task, frozenset()) - of_clusters.keys():
            self._variety.remove(task, str(gone))
        for cluster, variety in of_clusters.items():
            self._variety.labels(task, str(cluster)).set(variety)
        self._drawn[task] = frozenset(of_clusters)

    def show_devices(self, numbers: Mapping[DeviceState, int]) -> None:
        """How many devices there are now, by state."""
        for state in DeviceState:
            self._devices.labels(state.value).set(numbers.get(state, 0))

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)


_OF_CONTROL = {FileRequested: "blob_requested", PresenceSeen: "presence", MaskReplied: "mask_replied"}


def _outcome(decision: Decision) -> tuple[str, str]:
    match decision:
        case Accepted():
            return "accepted", ""
        case Repeated() | AnsweredBefore():
            return "repeated", ""
        case Refused():
            return "refused", decision.reason.value
        case Enrolled():
            return "enrolled", ""
        case FileRequested() | PresenceSeen() | MaskReplied():
            return _OF_CONTROL[type(decision)], ""
        case _:
            assert_never(decision)
