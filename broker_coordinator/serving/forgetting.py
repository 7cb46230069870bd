"""Takes out of a task's newest version what one device has sent: versions are computed anew without it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from broker_coordinator.aggregation.lineage import Departure, History
from broker_coordinator.aggregation.version import version_of
from broker_coordinator.serving.replay import Source, source_of, without_devices
from broker_coordinator.storage.journal import Journal, TasksChangedError
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing
from fleet_protocol.kinds import FEATURE_STATISTICS


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of one task. `version` was made, by a replay from `replayed_from` on; None where none was.

    `remains` says what of the device is still in the newest version, and what can be done about it; empty for nothing.
    """

    task: str
    version: int | None
    replayed_from: int | None
    remains: str = ""


def forget_device(journal: Journal, device: str, keys: KeyRing) -> Iterator[Forgotten]:
    """Make a version of every task without the updates of a device, which has left (`note_departure`) before.

    A running coordinator may make versions meanwhile; they are computed anew too.
    """
    registry = TaskRegistry(journal.engine)
    for task in registry.tasks():
        found = None
        while found is None and journal.holds_updates_of(task.name, device):
            with suppress(TasksChangedError):  # what was made meanwhile is computed anew too
                found = _forget(journal, registry, task.name, device, keys)
        if words := _in_solved_head(journal, task, device):
            found = found or Forgotten(task.name, None, None)
            found = replace(found, remains="; ".join(filter(None, (found.remains, words))))
        if found is not None:
            yield found


def _forget(journal: Journal, registry: TaskRegistry, task: str, device: str, keys: KeyRing) -> Forgotten:
    bundle = registry.bundle(task)
    newest = journal.newest_number(task)
    source = source_of(journal, bundle.description, keys)
    source = replace(source, history=_with(source.history, Departure(device, newest, 0)))
    forgotten = source.history.forgotten(newest)
    first = _first_holder(source, device, newest)
    if first is None:
        return Forgotten(task, None, None)
    state = replace(source.kept(newest).state(bundle.description.version.parameters, {}), version=newest)
    why = ""
    for start in _starts(source, first):
        try:
            made = without_devices(source, state, start, forgotten)
        except ConfigurationError as error:
            why = str(error)
            continue
        VersionRegistry(journal.engine).add_without(version_of(bundle.description, made, bundle.grid()), device, start)
        given = max((each for each in source.history.given if first <= each <= newest), default=None)
        return Forgotten(task, made.version, start, _remains(task, device, start, first, given))
    return Forgotten(task, None, None, f"all that {device} sent: {why}; {_remedy(task, first)}")


def _in_solved_head(journal: Journal, task: StoredTask, device: str) -> str:
    """What the head that a task's rounds went on from has of a device, and what can be done about it."""
    if task.solved_first is None or task.solved_last is None:
        return ""
    left = journal.history(task.name).lineage(task.solved_last).left.get(device, task.solved_first)
    if not journal.holds_payload_of(task.name, device, FEATURE_STATISTICS.number, left + 1, task.solved_last):
        return ""
    return (
        f"what {device} said of its features: the head of version {task.solved_last}, from which rounds went on,"
        " has it. To be rid of it, publish the bundle with [solved_head] again; then: broker-coordinator tasks refine"
        f" {task.name}"
    )


def _first_holder(source: Source, device: str, newest: int) -> int | None:
    """The first version with an update that the replay leaves out: the device's, or of those left out of replays that
    this one does again.
    """
    spans = source.history.spans(newest)
    first = source.journal.first_holder(source.task, device, spans)
    others = sorted(source.history.forgotten(newest).items(), key=lambda each: -each[1])
    for other, left_at in others:
        held = source.journal.first_holder(source.task, other, spans)
        if first is not None and held is not None and first <= left_at:
            first = min(first, held)
    return first


def _with(history: History, departure: Departure) -> History:
    return replace(history, departures=[*history.departures, departure])


def _starts(source: Source, first: int) -> Iterator[int]:
    """Where a replay may begin: at the last kept version without the device's updates, or else as soon as can be."""
    kept = source.journal.kept_numbers(source.task)[:-1]
    before = [number for number in kept if number < first]
    yield from before[-1:]
    yield from (number for number in kept if number >= first)


def _remains(task: str, device: str, start: int, first: int, given: int | None) -> str:
    """`given` is the newest version behind `first` that no updates made, and so none can make anew."""
    if given is not None and start < given:
        return (
            f"what {device} sent before version {given}, which was trained elsewhere and can't be computed anew;"
            f" {_remedy(task, first)}"
        )
    if start < first:
        return ""
    return (
        f"what {device} sent into versions {first} to {start}: envelopes or weights that a replay needs are dropped"
        f" ([retention]); {_remedy(task, first)}"
    )


def _remedy(task: str, first: int) -> str:
    return f"to be rid of it, go back to before it: broker-coordinator tasks rollback {task} VERSION, below {first}"
