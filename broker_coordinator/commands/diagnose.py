"""`tasks diagnose`: what a fleet's updates and its answers to queries say, in figures and in words."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import msgspec

from broker_coordinator.aggregation.diagnostics.dissimilarity import (
    FEWEST_DEVICES,
    FEWEST_UPDATES,
    Dissimilarity,
    dissimilarity,
)
from broker_coordinator.aggregation.diagnostics.empty_clusters import empty_clusters
from broker_coordinator.aggregation.diagnostics.findings import Figures, findings
from broker_coordinator.aggregation.diagnostics.participation import participation, quantiles
from broker_coordinator.aggregation.diagnostics.plan_fit import misfits, of_trusted
from broker_coordinator.commands.clusters import clusters_now
from broker_coordinator.commands.diagnosed_samples import samples_diagnosed
from broker_coordinator.commands.gossip_told import gossip_advice, gossip_told
from broker_coordinator.commands.quarantine import quarantine_advice
from broker_coordinator.consumers import version_consumer
from broker_coordinator.consumers.update import UPDATE_CONSUMER
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.recent_updates import RecentUpdate, recent_updates, updates_of_devices
from broker_coordinator.storage.records import items_together
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.aggregation_plan import KEEPS_ESTIMATES
from fleet_protocol.codec.sparse import SparseUpdate
from fleet_protocol.keys import KeyRing
from fleet_protocol.task_description import TaskDescription

UPDATES_LOOKED_AT = 2000
DEVICES_COMPARED = 200
"""Those that sent last."""
UPDATES_OF_DEVICE = 8
"""Of which the mean stands for what a device pulls towards; a single one is mostly the noise of its mini-batches."""


def diagnosis(journal: JournalReader, name: str, keys: KeyRing) -> dict[str, object]:
    """Figures of the last updates, advice, and what queries have found of samples.

    Raises:
        ConfigurationError: there is no such task.
        JournalUnavailableError: the database fails.
    """
    task = TaskRegistry(journal.engine).description(name)
    if task.gossip is not None:
        advice = gossip_advice(journal.engine, task)
        told = {"task": name, **gossip_told(journal.engine, task), "advice": advice}
        return told | samples_diagnosed(journal.engine, name).fields
    rows = recent_updates(journal.engine, name, UPDATES_LOOKED_AT)
    compared = _compared(journal, task, rows, keys)
    counts = [number for _, number in updates_of_devices(journal.engine, name)]
    sent = participation(counts)
    staleness = quantiles([row.staleness for row in rows])
    samples = samples_diagnosed(journal.engine, name)
    figures = Figures(sum(counts), staleness, _shortened(rows), samples.unlike, sent)
    devices = DeviceRegistry(journal.engine)
    trusted = of_trusted(task, devices.approved_presences, _heard(journal, task))
    clusters = empty_clusters(task.clusters, clusters_now(journal, task)) if task.clusters and rows else []
    words = [*misfits(task, devices.approved_count()), *trusted, *quarantine_advice(journal, task), *clusters]
    words += findings(figures, task)
    return {
        "task": name,
        "looked_at": len(rows),
        "staleness": staleness,
        "bytes": quantiles([row.bytes for row in rows if row.bytes is not None]),
        "shortened": figures.shortened,
        "participation": asdict(sent) if sent else {},
        "dissimilarity": asdict(compared) if isinstance(compared, Dissimilarity) else compared,
        "advice": words,
    } | samples.fields


def _heard(journal: JournalReader, task: TaskDescription) -> set[str] | None:
    """The devices that the newest version may be judged by; None before the first one, or where none judges."""
    plan = task.aggregation
    newest = journal.newest_number(task.task)
    if plan.rule is None or not plan.rule.trusted_devices or newest == journal.first_number(task.task):
        return None
    oldest = newest - plan.max_staleness
    return {device for device, (_, base) in journal.newest_held(task.task, after=oldest - 1).items() if base >= oldest}


def _shortened(rows: Sequence[RecentUpdate]) -> float:
    """The share of updates that others' norms scaled down; 0 of kinds that have no norm."""
    return sum(_scale(row.facts) < 1 for row in rows) / len(rows) if rows else 0.0


class _Scaled(msgspec.Struct, frozen=True):
    scale: float = 1.0


def _scale(facts: str) -> float:
    """Out of journalled facts; 1 where they say none, or can't be read."""
    try:
        return msgspec.json.decode(facts, type=_Scaled).scale
    except msgspec.MsgspecError:
        return 1.0


def _compared(
    journal: JournalReader, task: TaskDescription, rows: Sequence[RecentUpdate], keys: KeyRing
) -> Dissimilarity | str:
    """How unlike devices' updates are, or why that is not told."""
    if reason := _why_not(task):
        return reason
    positions: dict[str, list[int]] = defaultdict(list)
    for row in reversed(rows):
        known = row.device in positions or len(positions) < DEVICES_COMPARED
        if known and row.bytes is not None and len(positions[row.device]) < UPDATES_OF_DEVICE:
            positions[row.device].append(row.position)
    found = dissimilarity(
        _deltas(journal, task, [sorted(each) for each in positions.values()], keys), task.parameter_count
    )
    return found or (
        f"fewer than {FEWEST_DEVICES} devices have {FEWEST_UPDATES} updates or more, among the last {len(rows)}, that"
        " can be read and are not all zero"
    )


def _why_not(task: TaskDescription) -> str:
    if task.masks is not None:
        return "the coordinator sees no single device's update of this task ([privacy.masks])"
    if version_consumer(task) is not UPDATE_CONSUMER:
        return "versions of this task are not made of updates"
    if task.device_privacy is not None:
        return "it would tell of devices what this task's noise hides ([privacy.devices])"
    if task.split is not None or task.clusters is not None:
        return "devices of this task train different parameters ([split], [clusters])"
    if task.aggregation.strategy in KEEPS_ESTIMATES:
        return f"with {task.aggregation.strategy} an update is a change of the one before, and no direction by itself"
    return ""


def _deltas(
    journal: JournalReader, task: TaskDescription, positions: Sequence[Sequence[int]], keys: KeyRing
) -> Iterator[list[SparseUpdate]]:
    """Of one device after the other, as they counted; those that can't be read are left out."""
    for of_device in positions:
        rows = [row for row in journal.at_positions(of_device) if row.envelope is not None]
        items = [item for _, item in items_together(rows, task, keys)]
        yield [item.delta for item in items if not isinstance(item, Exception)]
