"""When the next version of a task is due, and when all of its devices are asked. Pure."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from broker_coordinator.aggregation.buffer_size import has_gone_round
from broker_coordinator.aggregation.strategies import Recall
from broker_coordinator.serving.served_task import ServedTask

ALONE_SECONDS: Final = 2.0
"""After a version, that payloads wait for others to go along with: then they make the next one, before devices begin
again with weights that lack them."""

MOVED_BY_ITS_BUFFER: Final = (Recall.NOTHING, Recall.RECENT_UPDATES)
"""A version of which nothing moves the weights but what the buffer holds."""


def deadline(task: ServedTask) -> float | None:
    """When the next version is made although its buffer is not full, or, if nobody has reported until then, when
    every device is asked; None where there is no limit, or nothing to do at it.
    """
    found = (_version_deadline(task), _patience_ends(task))
    return min((each for each in found if each is not None), default=None)


def is_due(task: ServedTask, now: float) -> bool:
    """Whether the next version is."""
    if task.why_no_more:
        return False
    if task.full_at() is not None or (task.waiting and task.newest.number < task.wanted_version):
        return True
    if task.follows_fleet and _has_gone_round(task):
        return True
    ends = _version_deadline(task)
    return bool(task.waiting) and ends is not None and now >= ends


def ask_everyone(task: ServedTask, now: float) -> bool:
    """Let the manifest ask every device if the deadline has passed without a report, or the patience with those that
    are selected is over; whether it changes now.
    """
    patience, ends = _patience_ends(task), None if task.waiting else _version_deadline(task)
    if all(each is None or now < each for each in (patience, ends)):
        return False
    task.asks_everyone = True
    return True


def _patience_ends(task: ServedTask) -> float | None:
    """When devices that were not selected may train too; None where all may."""
    plan = task.description.selection
    if plan is None or task.began is None or (selection := task.selection) is None or selection.takes_everybody:
        return None
    return task.began + task.utilities.pace.patience(plan.patience_seconds)


def _version_deadline(task: ServedTask) -> float | None:
    limit = _longest_wait(task)
    if not limit or task.began is None or (task.asks_everyone and not task.waiting):
        return None
    return task.began + limit


def _longest_wait(task: ServedTask) -> float:
    """In seconds, 0 without a limit. What goes along with others and finds none has come too late for its own, and
    makes a version by itself, except where that would also move by what is remembered.
    """
    limit = task.description.longest_wait_seconds
    is_alone = task.waiting and not any(task.consumer.take_place(each.facts) for each in task.waiting)
    if is_alone and task.consumer.recall(task.description) in MOVED_BY_ITS_BUFFER:
        return min(limit or ALONE_SECONDS, ALONE_SECONDS)
    return limit


def _has_gone_round(task: ServedTask) -> bool:
    """Counting those that take a place looks at all that wait: it comes last."""
    if not has_gone_round(len(task.waiting), _last_senders(task)):
        return False
    taken = sum(task.consumer.take_place(each.facts) for each in task.waiting)
    return has_gone_round(taken, _last_senders(task))


def _last_senders(task: ServedTask) -> Iterator[str]:
    """Those of updates that take a place, newest first."""
    takes_place = task.consumer.take_place
    waiting = (each.device for each in reversed(task.waiting) if takes_place(each.facts))
    return chain(waiting, reversed(task.senders))
