"""What each page shows, out of the coordinator's database. They read, and take the time as an argument.

Every function raises JournalUnavailableError where the database fails, and ConfigurationError for an unknown task.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.commands.devices import notes_of
from broker_coordinator.commands.task_shown import task_shown
from broker_coordinator.dashboard.questions import DevicesAsked, RefusedAsked, VersionsAsked
from broker_coordinator.storage.device_pages import (
    count_devices,
    read_contributions,
    read_device_page,
    read_refused_counts,
)
from broker_coordinator.storage.invitation_registry import InvitationRegistry
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import VersionSummary
from broker_coordinator.storage.refusals import RefusedCount, RefusedPayload, read_refused, read_refused_by_reason
from broker_coordinator.storage.standing import TaskStanding, read_standing
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_bytes import VersionBytes, read_version_bytes
from fleet_protocol.keys import write_verify_key
from fleet_protocol.kinds import PresenceState

SHOWN_INVITATIONS = 100
SHOWN_SET_ASIDE = 20


@dataclass(frozen=True, slots=True)
class TaskRow:
    """How a task stands: its newest version, how many updates wait and how many the next version takes; how its newest
    evaluated version did.
    """

    task: str
    paused: bool
    generation: int
    version: int
    waiting: int
    buffer_size: int
    accepted: int
    set_aside: int
    evaluated_version: int | None
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The first page: every task, and how many devices there are by state; `connected` of those that are approved."""

    tasks: Sequence[TaskRow]
    devices: Mapping[str, int]
    connected: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version. Losses and accuracy are None where nothing tells them, or they are not finite; bytes, where they are
    dropped. `with_forgotten` are devices that were forgotten, with whose updates it was made nevertheless.
    """

    number: int
    updates: int
    mean_loss: float | None
    mean_staleness: float | None
    restored: int | None
    given: str | None
    step: float
    kept: bool
    accuracy: float | None
    evaluated_loss: float | None
    evaluated_samples: int | None
    update_bytes: int | None
    weights_bytes: int | None
    with_forgotten: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionsPage:
    """Versions of a task, oldest first; `before` is what to ask for next, None where there are no older ones."""

    task: str
    newest: int
    first_version: int
    paused: bool
    versions: Sequence[VersionRow]
    before: int | None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """One task: how it stands, what is advised, what was set aside, and in `told` what `tasks show` says besides."""

    row: TaskRow
    advice: Sequence[str]
    told: Mapping[str, object]
    set_aside: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One key of a device. `heard` is when its last payload came, in seconds since 1970; None where none has since the
    dashboard began to watch. Of `version`, its last accepted payload started.
    """

    name: str
    state: str
    presence: str | None
    profile: str
    software: str
    key_id: str
    public_key: str
    task: str | None
    version: int | None
    updates: int
    refused: Mapping[str, int]
    heard: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """One that somebody may still use, or was refused with."""

    device: str
    state: str
    expires: int
    refused: int
    last_refusal: str


@dataclass(frozen=True, slots=True)
class DevicesPage:
    """A page of devices. `watched_since`: the dashboard has noted since then when payloads came."""

    first: int
    total: int
    devices: Sequence[DeviceRow]
    invitations: Sequence[Invitation]
    watched_since: float


@dataclass(frozen=True, slots=True)
class RefusedPage:
    """What was refused: by reason, and payload by payload, the newest first; `before` as in `VersionsPage`."""

    reasons: Sequence[RefusedCount]
    payloads: Sequence[RefusedPayload]
    before: int | None


def overview(journal: JournalReader) -> Overview:
    """Every task in one row, and the devices counted."""
    standing = read_standing(journal.engine).tasks
    tasks = [_task_row(journal, name, standing.get(name, TaskStanding())) for name in _served(journal)]
    counted = count_devices(journal.engine)
    by_state = {state.value: 0 for state in DeviceState}
    for (state, _), number in counted.items():
        by_state[state] = by_state.get(state, 0) + number
    return Overview(tasks, by_state, counted.get((DeviceState.APPROVED.value, PresenceState.ONLINE.value), 0))


def task_page(journal: JournalReader, name: str) -> TaskPage:
    """One task, without its versions."""
    shown = task_shown(journal, name, SHOWN_SET_ASIDE)
    row = _task_row(journal, name, read_standing(journal.engine).tasks.get(name, TaskStanding()))
    elsewhere = {*TaskRow.__dataclass_fields__, "versions", "last_set_aside", "advice"}
    told = {key: value for key, value in shown.items() if key not in elsewhere}
    advice, set_aside = shown["advice"], shown["last_set_aside"]
    return TaskPage(row, advice, told, set_aside)  # type: ignore[arg-type]  # lists, which `tasks show` prints too


def versions_page(journal: JournalReader, name: str, asked: VersionsAsked) -> VersionsPage:
    """The last versions below `asked.before`."""
    task = TaskRegistry(journal.engine).task(name)
    found = journal.overview.version_summaries(name, asked.rows, before=asked.before)
    first, last = (found[0].number, found[-1].number) if found else (0, -1)
    sizes = read_version_bytes(journal.engine, name, first, last)
    rows = [_version_row(each, sizes.get(each.number, VersionBytes())) for each in found]
    before = first if len(found) == asked.rows else None
    return VersionsPage(name, journal.newest_number(name), task.first_version, task.paused, rows, before)


def devices_page(
    journal: JournalReader, asked: DevicesAsked, heard: Mapping[str, float], watched_since: float, now: float
) -> DevicesPage:
    """Some devices, and the invitations that are open or were refused. `heard` is by name; `now` since 1970."""
    page = read_device_page(
        journal.engine,
        asked.first,
        asked.rows,
        search=asked.search,
        state=asked.state,
        sort=asked.sort,
        descending=asked.descending,
    )
    names = list({device.name for device in page.devices})
    contributions = read_contributions(journal.engine, names)
    refused = read_refused_counts(journal.engine, names)
    note = notes_of(journal)

    def row(device: Device) -> DeviceRow:
        sent = contributions.get(device.name)
        return DeviceRow(
            device.name,
            device.state.value,
            device.presence.value if device.state is DeviceState.APPROVED else None,
            device.profile,
            device.software,
            device.key_id.hex(),
            write_verify_key(device.public_key),
            sent.task if sent else None,
            sent.base_version if sent else None,
            sent.accepted if sent else 0,
            {reason.value: number for reason, number in refused.get(device.name, {}).items()},
            heard.get(device.name),
            note(device),
        )

    rows = [row(device) for device in page.devices]
    return DevicesPage(page.first, page.total, rows, _invitations(journal, now), watched_since)


def refused_page(journal: JournalReader, asked: RefusedAsked) -> RefusedPage:
    """Refused payloads before `asked.before`, and all refused messages by reason."""
    found = read_refused(
        journal.engine, asked.rows, before=asked.before, device=asked.device or "", reason=asked.reason
    )
    before = found[-1].position if len(found) == asked.rows else None
    return RefusedPage(read_refused_by_reason(journal.engine), found, before)


def _served(journal: JournalReader) -> list[str]:
    return [task.name for task in TaskRegistry(journal.engine).tasks()]


def _task_row(journal: JournalReader, name: str, standing: TaskStanding) -> TaskRow:
    registry = TaskRegistry(journal.engine)
    task = registry.task(name)
    buffer_size = standing.buffer_size or registry.description(name).aggregation.smallest_buffer
    accepted, waiting = journal.overview.update_counts(name)
    evaluated = journal.overview.evaluations(name)
    newest = evaluated[max(evaluated)] if evaluated else None
    return TaskRow(
        name,
        task.paused,
        task.generation,
        standing.newest,
        waiting,
        buffer_size,
        accepted,
        journal.overview.set_aside_count(name),
        newest.version if newest else None,
        _finite(newest.accuracy) if newest else None,
        _finite(newest.loss) if newest else None,
    )


def _version_row(summary: VersionSummary, sizes: VersionBytes) -> VersionRow:
    found = summary.evaluation
    return VersionRow(
        summary.number,
        summary.updates,
        _finite(summary.mean_loss),
        summary.mean_staleness,
        summary.restored,
        summary.given,
        summary.step,
        summary.kept,
        _finite(found.accuracy) if found else None,
        _finite(found.loss) if found else None,
        found.samples if found else None,
        sizes.updates,
        sizes.weights,
        summary.with_forgotten,
    )


def _invitations(journal: JournalReader, now: float) -> list[Invitation]:
    found = InvitationRegistry(journal.engine).invitations(now)
    of_interest = [each for each in found if each.state.value == "open" or each.refused]
    return [
        Invitation(each.device, each.state.value, each.expires, each.refused, each.last_refusal)
        for each in of_interest[-SHOWN_INVITATIONS:]
    ]


def _finite(value: float | None) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if value is not None and math.isfinite(value) else None
