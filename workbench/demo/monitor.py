"""Monitors a demo fleet: the agents' status, the coordinator's journal, the bytes at the broker."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

from broker_coordinator.aggregation.averaging import RecentVersions
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import JournalledPayload
from edge_agent.sources.unix_socket import Status
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import ConfigurationError
from workbench.data.digits import CLASSES
from workbench.data.head_rounds import Rounds
from workbench.demo.audit import audit, read_ledger
from workbench.demo.drawn.gallery import DrawnGroup, Gallery
from workbench.demo.drawn.picture_folder import drawn_pictures
from workbench.demo.fleet_files import WHOLE, DeviceFiles, FleetFiles
from workbench.demo.helper import HelperFiles
from workbench.demo.measurement import Measured
from workbench.demo.observer import Observer
from workbench.demo.sensors import Sensor, ask_status
from workbench.report.history import (
    DIGITS,
    AccuracyPoint,
    DeviceRow,
    DrawnPictures,
    HelperRow,
    RoundPoint,
    RunHistory,
    Subject,
    Summary,
    Totals,
)
from workbench.report.privacy_told import Told


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The current state of a run."""

    devices: list[DeviceRow]
    accuracy: list[AccuracyPoint]
    elapsed_seconds: float
    broker: str
    events: list[str]
    drawn: Sequence[DrawnGroup] = ()
    told: Sequence[Told] = ()


@dataclass(slots=True)
class FleetMonitor:
    """A run so far. `sensors` are in the order of the devices in `files`."""

    files: FleetFiles
    sensors: Sequence[Sensor]
    observer: Observer
    measurement: Measured
    broker: str
    new_samples: int
    helpers: Sequence[HelperFiles] = ()
    subject: Subject = DIGITS
    gallery: Gallery | None = None
    """Of a task that draws."""
    privacy: str = "none"
    """The mode that was asked for."""
    mask_helpers: Sequence[HelperFiles] = ()
    events: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _statuses: list[Status | None] = field(default_factory=list)
    _journal: list[JournalledPayload] = field(default_factory=list)
    _clusters: Mapping[str, int] = field(default_factory=dict)
    _accuracy: list[AccuracyPoint] = field(default_factory=list)
    _newest: bytes | None = None
    """The weights of the last version, as a safetensors file."""
    _clip: float | None = None
    """Its clip, as it is stored."""
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
            and status.new_samples[self.files.task] < self.new_samples
            for device, status in zip(self.files.devices, self._statuses, strict=True)
            if device.name not in absent
        )

    @property
    def waits_for_a_version(self) -> bool:
        """Whether anything in the journal is in no version yet, as of the last `refresh`."""
        return any(row.aggregate is None and row.set_aside is None for row in self._journal)

    def announce(self, event: str) -> None:
        """Add an event to those displayed."""
        self.events.append(f"{self.elapsed_seconds:.0f} s: {event}")

    async def refresh(self) -> None:
        """Ask every agent, and read what is new in the journal."""
        self._statuses = list(await asyncio.gather(*(ask_status(device.socket) for device in self.files.devices)))
        await asyncio.to_thread(self.read_journal)  # drawing takes a while, and the observer counts meanwhile

    def read_journal(self) -> None:
        """Read new updates and versions; a journal that does not exist yet, or is busy, is read the next time."""
        with (
            contextlib.suppress(ConfigurationError, JournalUnavailableError),
            JournalReader.open(self.files.coordinator_database) as journal,
        ):
            self._journal = list(journal.updates(self.files.task))
            self._note_clusters(ClusterRegistry(journal.engine).assigned().get(self.files.task, {}))
            newest = self._accuracy[-1].version if self._accuracy else -1
            for version in journal.versions(self.files.task, after=newest):
                self._newest = version.weights
                self._clip = version.clip
                self._recent.add(version.number, version.weights)
                model = self._recent.model(self.measurement.tensors)
                if self.gallery is not None:
                    self.gallery.add(version.number, model, self._clusters)
                rows = self._of_devices()
                held = sum(row.aggregate is not None and row.aggregate <= version.number for row in rows)
                self._accuracy.append(
                    AccuracyPoint(
                        seconds=self.elapsed_seconds,
                        version=version.number,
                        accuracy=self.measurement.accuracy(model, self._clusters),
                        uplink_bytes=sum(self.observer.uplink[device.name] for device in self.files.devices),
                        dense_uplink_bytes=held * self.measurement.dense_bytes,
                    )
                )

    def snapshot(self) -> Snapshot:
        """The current state, for display."""
        drawn = () if self.gallery is None else self.gallery.groups
        devices = self.rows()
        told = self._told(devices)
        return Snapshot(devices, self._accuracy, self.elapsed_seconds, self.broker, self.events, drawn, told)

    def rows(self) -> list[DeviceRow]:
        """One row per device, as of the last `refresh`."""
        statuses = self._statuses or [None] * len(self.sensors)
        pairs = zip(self.files.devices, self.sensors, statuses, strict=True)
        return [self._row(device, sensor, status) for device, sensor, status in pairs]

    def helper_rows(self) -> list[HelperRow]:
        """One row per helper."""
        return [self._helper_row(helper.name) for helper in self.helpers]

    def conclude(self, *, seed: int, stopped_early: bool) -> RunHistory:
        """The whole run, once agents and coordinator have ended; what agents say is as it was before that."""
        databases = {each.name: each.database for each in self.files.devices}
        databases |= {each.name: each.database for each in self.helpers}
        ledgers = {name: read_ledger(database) for name, database in databases.items() if database.exists()}
        found = audit(ledgers, self._accepted_payloads())
        staleness = self._staleness(self._of_devices())
        devices = self.rows()
        sums = Totals.of(devices)
        newest_accuracy = self.measurement.accuracy(self._newest, self._clusters)
        rounds = _points(self.measurement.rounds())
        summary = Summary(
            accuracy=self._accuracy[-1].accuracy if self._accuracy else newest_accuracy,
            central_accuracy=self.measurement.central_accuracy(len(rounds) * len(self.sensors) or sums.applied),
            updates_applied=sums.applied,
            updates_lost=found.lost,
            updates_duplicated=found.duplicated,
            uplink_bytes=sums.uplink_bytes,
            dense_uplink_bytes=(sums.applied + sums.buffered) * self.measurement.dense_bytes,
            versions=self._accuracy[-1].version if self._accuracy else 0,
            median_staleness=float(median(staleness)) if staleness else None,
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
            relayed_bytes=sum(each.relayed_up_bytes + each.relayed_down_bytes for each in devices),
            message_bytes=sum(len(row.envelope or b"") for row in self._journal) if rounds else 0,
            rounds=rounds,
            privacy=self.privacy,
            mask_helper_bytes=sum(self.observer.uplink[each.name] for each in self.mask_helpers),
            told=self._told(devices),
        )
        return RunHistory(
            summary, self._accuracy, staleness, devices, self.events, self.helper_rows(), self.subject, self._drawn()
        )

    def _told(self, devices: Sequence[DeviceRow]) -> list[Told]:
        rounds = max((each.applied + each.buffered for each in devices), default=0)
        versions = self._accuracy[-1].version if self._accuracy else 0
        return self.measurement.told(rounds=rounds, versions=versions, clip=self._clip)

    def _drawn(self) -> list[DrawnPictures]:
        return [] if self.gallery is None else [drawn_pictures(group) for group in self.gallery.groups]

    def _note_clusters(self, clusters: Mapping[str, int]) -> None:
        """Say who is where, when that has changed."""
        if clusters == self._clusters:
            return
        self._clusters = clusters
        members = [
            f"{number}: {', '.join(name for name in sorted(clusters) if clusters[name] == number)}"
            for number in sorted(set(clusters.values()))
        ]
        told = f"clusters found, {'; '.join(members)}" if members else "no device is in a cluster any more"
        self.announce(told)

    def _accepted_payloads(self) -> list[JournalledPayload]:
        """Of all kinds, as ledgers have them; updates alone where the journal can't be read."""
        with (
            contextlib.suppress(ConfigurationError, JournalUnavailableError),
            JournalReader.open(self.files.coordinator_database) as journal,
        ):
            return list(journal.payloads(self.files.task))
        return self._journal

    def _of_devices(self) -> list[JournalledPayload]:
        """What is journalled, without helpers' updates."""
        helpers = {helper.name for helper in self.helpers}
        return [row for row in self._journal if row.device not in helpers]

    def _staleness(self, rows: Sequence[JournalledPayload]) -> list[int]:
        """Of what versions contain; nothing where it has none."""
        return [] if self.measurement.is_solved else [row.staleness for row in rows if row.aggregate is not None]

    def _helper_row(self, name: str) -> HelperRow:
        applied = sum(row.device == name and row.aggregate is not None for row in self._journal)
        return HelperRow(name, applied, self.observer.relayed_up[name], self.observer.relayed_down[name])

    def _row(self, device: DeviceFiles, sensor: Sensor, status: Status | None) -> DeviceRow:
        name = device.name
        own = [row for row in self._journal if row.device == name]
        applied, staleness = sum(row.aggregate is not None for row in own), self._staleness(own)
        return DeviceRow(
            name=name,
            state=_state_in_words(status),
            version=status.versions.get(self.files.task, 0) if status else 0,
            staleness=fmean(staleness) if staleness else None,
            applied=applied,
            buffered=len(own) - applied,
            uplink_bytes=self.observer.uplink[name],
            samples=sensor.delivered,
            samples_expected=sensor.total,
            samples_per_second=sensor.total / sensor.seconds,
            label_counts=np.bincount(sensor.samples.labels, minlength=CLASSES).tolist(),
            cut="" if device.cut == WHOLE else device.cut,
            relayed_up_bytes=self.observer.relayed_up[name],
            relayed_down_bytes=self.observer.relayed_down[name],
            cluster=self._clusters.get(name, NO_CLUSTER),
        )


def _points(rounds: Rounds | None) -> list[RoundPoint]:
    if rounds is None:
        return []
    pairs = zip(rounds.accuracies, rounds.sent, strict=True)
    return [RoundPoint(number, accuracy, sent) for number, (accuracy, sent) in enumerate(pairs, start=1)]


def _state_in_words(status: Status | None) -> str:
    if status is None:
        return "offline"
    return "sending" if status.state == "sleeping" and status.waiting_updates else status.state
