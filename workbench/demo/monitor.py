"""Monitors a demo fleet: the agents' status, the coordinator's journal, the bytes at the broker."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

from broker_coordinator.aggregation.averaging import RecentVersions
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import JournalledPayload
from edge_agent.sources.unix_socket import Status
from fleet_protocol.errors import ConfigurationError
from workbench.data.digits import CLASSES
from workbench.demo.audit import audit, read_ledger
from workbench.demo.fleet_files import TASK, FleetFiles
from workbench.demo.measurement import Measurement
from workbench.demo.observer import Observer
from workbench.demo.sensors import Sensor, ask_status
from workbench.report.history import AccuracyPoint, DeviceRow, RunHistory, Summary, Totals


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The current state of a run."""

    devices: list[DeviceRow]
    accuracy: list[AccuracyPoint]
    elapsed_seconds: float
    broker: str
    events: list[str]


@dataclass(slots=True)
class FleetMonitor:
    """A run so far. `sensors` are in the order of the devices in `files`."""

    files: FleetFiles
    sensors: Sequence[Sensor]
    observer: Observer
    measurement: Measurement
    broker: str
    new_samples: int
    events: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _statuses: list[Status | None] = field(default_factory=list)
    _journal: list[JournalledPayload] = field(default_factory=list)
    _accuracy: list[AccuracyPoint] = field(default_factory=list)
    _newest: bytes | None = None
    """The weights of the last version, as a safetensors file."""
    _recent: RecentVersions = field(init=False)

    def __post_init__(self) -> None:
        """No version has been seen."""
        self._recent = RecentVersions(self.measurement.averaged_versions)

    @property
    def elapsed_seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started

    def is_quiet(self, absent: frozenset[str]) -> bool:
        """Whether every agent sleeps, has nothing to send, and too few new samples to wake up for; those of `absent`
        devices don't count.
        """
        return all(
            status is not None
            and status.state == "sleeping"
            and status.waiting_updates == 0
            and status.new_samples[TASK] < self.new_samples
            for device, status in zip(self.files.devices, self._statuses, strict=True)
            if device.name not in absent
        )

    def announce(self, event: str) -> None:
        """Add an event to those displayed."""
        self.events.append(f"{self.elapsed_seconds:.0f} s: {event}")

    async def refresh(self) -> None:
        """Ask every agent, and read what is new in the journal."""
        self._statuses = list(await asyncio.gather(*(ask_status(device.socket) for device in self.files.devices)))
        self.read_journal()

    def read_journal(self) -> None:
        """Read new updates and versions; a journal that does not exist yet, or is busy, is read the next time."""
        with (
            contextlib.suppress(ConfigurationError, JournalUnavailableError),
            JournalReader.open(self.files.coordinator_database) as journal,
        ):
            self._journal = list(journal.updates(TASK))
            newest = self._accuracy[-1].version if self._accuracy else -1
            for version in journal.versions(TASK, after=newest):
                self._newest = version.weights
                self._recent.add(version.number, version.weights)
                held = sum(row.aggregate is not None and row.aggregate <= version.number for row in self._journal)
                self._accuracy.append(
                    AccuracyPoint(
                        seconds=self.elapsed_seconds,
                        version=version.number,
                        accuracy=self.measurement.accuracy(self._recent.model(self.measurement.tensors)),
                        uplink_bytes=self.observer.uplink_bytes,
                        dense_uplink_bytes=held * self.measurement.dense_bytes,
                    )
                )

    def snapshot(self) -> Snapshot:
        """The current state, for display."""
        return Snapshot(self.rows(), self._accuracy, self.elapsed_seconds, self.broker, self.events)

    def rows(self) -> list[DeviceRow]:
        """One row per device, as of the last `refresh`."""
        statuses = self._statuses or [None] * len(self.sensors)
        pairs = zip(self.files.devices, self.sensors, statuses, strict=True)
        return [self._row(device.name, sensor, status) for device, sensor, status in pairs]

    def conclude(self, *, seed: int, stopped_early: bool) -> RunHistory:
        """The whole run, once agents and coordinator have ended; what agents say is as it was before that."""
        ledgers = {
            device.name: read_ledger(device.database) for device in self.files.devices if device.database.exists()
        }
        found = audit(ledgers, self._journal)
        staleness = [row.staleness for row in self._journal if row.aggregate is not None]
        devices = self.rows()
        sums = Totals.of(devices)
        newest_accuracy = self.measurement.accuracy(self._newest or self.measurement.initial_weights)
        summary = Summary(
            accuracy=self._accuracy[-1].accuracy if self._accuracy else newest_accuracy,
            central_accuracy=self.measurement.central_accuracy(sums.applied),
            updates_applied=sums.applied,
            updates_lost=found.lost,
            updates_duplicated=found.duplicated,
            uplink_bytes=sums.uplink_bytes,
            dense_uplink_bytes=(sums.applied + sums.buffered) * self.measurement.dense_bytes,
            versions=self._accuracy[-1].version if self._accuracy else 0,
            median_staleness=float(median(staleness)) if staleness else 0.0,
            wall_seconds=round(self.elapsed_seconds, 1),
            broker=self.broker,
            agents=len(self.sensors),
            seed=seed,
            stopped_early=stopped_early,
            downlink_bytes=self.observer.downlink_bytes,
            updates_rejected=found.rejected,
            updates_pending=found.pending,
            updates_buffered=sums.buffered,
            held_out_samples=self.measurement.held_out_samples,
            parameters=self.measurement.parameters,
            averaged_versions=len(self._recent.averaged),
            newest_version_accuracy=newest_accuracy,
        )
        return RunHistory(summary, self._accuracy, staleness, devices, self.events)

    def _row(self, name: str, sensor: Sensor, status: Status | None) -> DeviceRow:
        own = [row for row in self._journal if row.device == name]
        staleness = [row.staleness for row in own if row.aggregate is not None]
        return DeviceRow(
            name=name,
            state=_state_in_words(status),
            version=status.versions.get(TASK, 0) if status else 0,
            staleness=fmean(staleness) if staleness else None,
            applied=len(staleness),
            buffered=len(own) - len(staleness),
            uplink_bytes=self.observer.uplink[name],
            samples=sensor.delivered,
            samples_expected=sensor.total,
            samples_per_second=sensor.total / sensor.seconds,
            label_counts=np.bincount(sensor.samples.labels, minlength=CLASSES).tolist(),
        )


def _state_in_words(status: Status | None) -> str:
    if status is None:
        return "offline"
    return "sending" if status.state == "sleeping" and status.waiting_updates else status.state
