"""Takes out of a task's newest version what one device has sent: versions are computed anew without it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np

from broker_coordinator.aggregation.lineage import Departure, History, leaves_out, overlap
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.version import Version, version_of
from broker_coordinator.serving.replay import Source, source_of, without_devices
from broker_coordinator.storage.journal import Journal, TasksChangedError
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_history import versions_holding
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KeyRing
from fleet_protocol.kinds import FEATURE_STATISTICS


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of one task. `version` was made, by a replay from `replayed_from` on; None where none was.

    It lacks `updates` of the device, and those of others that the replay took once more are `others`. It is `distance`
    away from the version before it, whose weights are `length` long (Euclidean norms of weights).
    `remains` says what of the device is still in the newest version, and what can be done about it; empty for nothing.
    """

    task: str
    version: int | None
    replayed_from: int | None
    updates: int = 0
    others: int = 0
    distance: float = 0.0
    length: float = 0.0
    remains: str = ""


MOST_ATTEMPTS: Final = 10
"""Of replays, while a running coordinator makes versions faster."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be forgotten of a device: what `since` or a later version holds, or all; of one task, or every one."""

    device: str
    since: int | None = None
    task: str | None = None


Computed = tuple[Forgotten, Version | None]
"""With the version, which is in no database yet."""


def forget_device(journal: Journal, asked: Asked, keys: KeyRing) -> Iterator[Forgotten]:
    """Make a version of every task without the updates of a device, which has left (`note_departure`) before.

    A running coordinator may make versions meanwhile; they are computed anew too. Each task's version is one
    transaction.
    """
    for task in _concerned(journal, asked):
        for _ in range(MOST_ATTEMPTS):
            told, made = _computed(journal, task, asked, keys)
            if made is None:
                break
            departure = Departure(asked.device, made.number - 1, told.replayed_from, asked.since)
            with suppress(TasksChangedError):  # what was made meanwhile is computed anew too
                VersionRegistry(journal.engine).add_without(made, departure)
                break
        else:
            words = (
                f"all that {asked.device} sent: a version was made during each of {MOST_ATTEMPTS} replays; run"
                f" broker-coordinator tasks pause {task.name}, this command again, and tasks resume {task.name}"
            )
            told = Forgotten(task.name, None, None, remains=words)
        yield told


def would_forget(journal: JournalReader, asked: Asked, keys: KeyRing) -> Iterator[Forgotten]:
    """What `forget_device` would tell now. Nothing is written."""
    for task in _concerned(journal, asked):
        yield _computed(journal, task, asked, keys)[0]


def check_asked(journal: JournalReader, asked: Asked) -> None:
    """Check that a device can be forgotten so.

    Raises:
        ConfigurationError: there is no such task, or version; or versions of which of several tasks are meant.
    """
    registry = TaskRegistry(journal.engine)
    if asked.task is not None:
        registry.task(asked.task)
    if asked.since is None:
        return
    tasks = [task.name for task in _concerned(journal, asked)]
    if len(tasks) > 1:
        raise ConfigurationError(
            f"--since {asked.since}: {asked.device} has updates in versions of {', '.join(tasks)}, and each task counts"
            " its own; say of which with --task"
        )
    for name in tasks:
        if asked.since > (newest := journal.newest_number(name)):
            raise ConfigurationError(
                f"--since {asked.since}: the newest version of task {name!r} is {newest}; see: broker-coordinator tasks"
                f" show {name}"
            )


def _concerned(journal: JournalReader, asked: Asked) -> list[StoredTask]:
    """The tasks that have something of a device."""
    return [
        task
        for task in TaskRegistry(journal.engine).tasks()
        if asked.task in {None, task.name}
        and (journal.holds_updates_of(task.name, asked.device) or _in_solved_head(journal, task, asked.device))
    ]


def _computed(journal: JournalReader, task: StoredTask, asked: Asked, keys: KeyRing) -> Computed:
    told, made = _replayed(journal, task.name, asked, keys)
    remains = "; ".join(filter(None, (told.remains, _in_solved_head(journal, task, asked.device))))
    return replace(told, remains=remains), made


def _replayed(journal: JournalReader, task: str, asked: Asked, keys: KeyRing) -> Computed:
    bundle = TaskRegistry(journal.engine).bundle(task)
    newest, device = journal.newest_number(task), asked.device
    source = source_of(journal, bundle.description, keys)
    departure = Departure(device, newest, 0, asked.since)
    source = replace(source, history=_with(source.history, departure))
    concerned = {device, *(each.device for each in source.history.departures)}
    held = versions_holding(journal.engine, task, concerned)
    if not (own := source.history.still_held(newest, held).get(device)):
        return Forgotten(task, None, None), None
    first = own[0]
    state = replace(source.kept(newest).state(bundle.description.version.parameters, {}), version=newest)
    why = "each version that a replay could begin with holds it, or what was forgotten before"
    for start in _starts(source, device, held, newest):
        try:
            made = without_devices(source, state, start, source.history.forgotten(newest))
        except (ConfigurationError, ProtocolError) as error:
            why = str(error)
            continue
        given = max((each for each in source.history.given if first <= each <= newest), default=None)
        told = Forgotten(
            task,
            made.version,
            start,
            *_counted(source, departure, start),
            *_moved(state, made),
            _remains(task, device, start, first, given),
        )
        return told, version_of(bundle.description, made, bundle.grid())
    words = f"all that {device} sent: {why}; {_remedy(task, first)}"
    return Forgotten(task, None, None, remains=words), None


def _counted(source: Source, departure: Departure, start: int) -> tuple[int, int]:
    """How many updates behind `start` a replay leaves out of the device, and how many of others it takes."""
    newest, without = departure.version, source.history.forgotten(departure.version)
    left_out = taken = 0
    spans = overlap(source.history.spans(newest), (start + 1, newest))
    for device, version, updates in source.journal.held_counts(source.task, spans):
        if not leaves_out(without, device, version):
            taken += updates
        elif device == departure.device:
            left_out += updates
    return left_out, taken


def _moved(before: ServerState, after: ServerState) -> tuple[float, float]:
    old = before.weights.astype(np.float64)
    return float(np.linalg.norm(after.weights - old)), float(np.linalg.norm(old))


def _in_solved_head(journal: JournalReader, task: StoredTask, device: str) -> str:
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


def _with(history: History, departure: Departure) -> History:
    return replace(history, departures=[*history.departures, departure])


def _starts(source: Source, device: str, held: Mapping[str, Sequence[int]], newest: int) -> Iterator[int]:
    """Where a replay may begin: at the last kept version without the device's updates, or else as soon as can be. Never
    where something would come back that the newest version is without, nor where nothing of the device would go.
    """
    now = source.history.still_held(newest, held)
    first, kept = now[device][0], source.journal.kept_numbers(source.task)[:-1]

    def is_better(start: int) -> bool:
        then = source.history.still_held(start, held)
        nothing_returns = all(set(numbers) <= set(now.get(each, ())) for each, numbers in then.items())
        return nothing_returns and len(then.get(device, ())) < len(now[device])

    yield from islice(filter(is_better, (number for number in reversed(kept) if number < first)), 1)
    yield from filter(is_better, (number for number in kept if number >= first))


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
