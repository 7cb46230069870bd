"""Makes the next version of a task out of its buffer, and takes it over once it is committed. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from broker_coordinator.admission.participation import Participation
from broker_coordinator.aggregation.buffer_size import VERSIONS_LOOKED_AT, Participants
from broker_coordinator.aggregation.collapse import DeviceLoss, Watch
from broker_coordinator.aggregation.device_privacy.version_noise import NoiseSeries
from broker_coordinator.aggregation.means import mean_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.version import Version
from broker_coordinator.serving.due import is_due
from broker_coordinator.serving.judging import as_judged, declared
from broker_coordinator.serving.served_task import ServedTask, told_by
from broker_coordinator.serving.waiting import WaitingPayload


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A version that is made but not committed: of the `update_count` oldest waiting updates, the last of them at
    `last_position`. `mean_loss` is None where the kind tells no loss. `noise` is the series with
    its own seed, where it hides each device.
    """

    version: Version
    state: ServerState
    participants: Participants
    watch: Watch
    update_count: int
    last_position: int
    median_staleness: float
    mean_loss: float | None
    noise: NoiseSeries | None = None


def next_version(task: ServedTask, now: float) -> NextVersion | None:
    """The version that follows, or None while the buffer is not full and has time left.

    Raises:
        Exception: it can't be made of the `buffer`.
    """
    task.began = now if task.began is None else task.began
    if not is_due(task, now):
        return None
    buffer = task.buffer()
    participants = _participants_after(task, buffer)
    losses = _losses(task, buffer)
    with np.errstate(all="ignore"):  # `check` says what matters of it
        items, noise = _items(task, buffer)
        state = task.consumer.next_state(task.state, items, task.description)
    number = task.newest.number + 1
    tempering = task.harm.tempering_after(number, declared(task, buffer), task.newest.tempering)
    since, until, not_until = tempering or (None, None, None)
    version = replace(task.check(state), tempers_since=since, tempers_until=until, tempers_not_until=not_until)
    return NextVersion(
        replace(version, buffer_size=_size_by(task, participants)),
        state,
        participants,
        task.watch.after(number, losses),
        update_count=len(buffer),
        last_position=buffer[-1].position,
        median_staleness=median(waiting.staleness for waiting in buffer),
        mean_loss=mean_of([loss for _, loss in losses]) if losses else None,
        noise=noise,
    )


def advance(task: ServedTask, made: NextVersion, now: float) -> None:
    """Take over a version that is committed."""
    held = task.oldest(made.update_count)
    task.newest = made.version
    task.harm.note(made.version.number, declared(task, held))
    task.state = made.state
    task.participants = made.participants
    task.watch = made.watch
    plan = task.description.selection
    if plan is not None and task.began is not None:
        task.utilities.version_made(max(0.0, now - task.began), task.buffer_size, in_time=not task.asks_everyone)
    task.began = now
    task.asks_everyone = False
    if held and task.description.suspects is not None:
        task.quarantine.verdicts.version_made(min(each.position for each in held))
    for waiting in held:
        task.waiting.popleft()
        _note_held(task, waiting, made)
    if made.noise is not None:
        task.noise = made.noise


def _note_held(task: ServedTask, waiting: WaitingPayload, made: NextVersion) -> None:
    """The version holds an update: what is known of its device."""
    device = waiting.device
    task.senders.append(device)
    if (told := told_by(task.description, waiting.facts, waiting.staleness)) is not None:
        task.utilities.note(device, told)
    if task.description.suspects is not None:
        task.quarantine.note(as_judged(waiting))
    if made.noise is not None:
        before = task.participations.get(device, Participation())
        task.participations[device] = before.again(made.noise.made)


def _losses(task: ServedTask, buffer: Iterable[WaitingPayload]) -> list[DeviceLoss]:
    """The losses that the devices of updates tell, where their kind tells one."""
    if (loss_of := task.consumer.loss) is None:
        return []
    told = [(waiting.device, loss_of(waiting.facts)) for waiting in buffer]
    return [(device, loss) for device, loss in told if loss is not None]


def _items(task: ServedTask, buffer: Sequence[WaitingPayload]) -> tuple[list[Any], NoiseSeries | None]:
    """What the next version is made of; of one that hides each device, with noise of a seed drawn now."""
    items = [waiting.item for waiting in buffer]
    if (plan := task.description.device_privacy) is None:
        return items, None
    noise = task.noise.after(task.draw_seed(), plan)
    return [*items, noise.noise], noise


def _size_by(task: ServedTask, participants: Participants) -> int | None:
    """Of the buffer after the next version; None where the task says it."""
    if not task.follows_fleet:
        return None
    is_new = task.newest.number + 1 - task.first_version < VERSIONS_LOOKED_AT
    return participants.buffer_size(task.approved() if is_new else 0)


def _participants_after(task: ServedTask, buffer: Iterable[WaitingPayload]) -> Participants:
    """Those once a version is made of the buffer; the same where nothing follows them."""
    if not task.follows_fleet:
        return task.participants
    newest = task.newest.number
    return task.participants.after(newest + 1, {each.device: newest - each.staleness for each in buffer})
