"""Prompts: checks what a device says of its samples, and counts them; `prompt_synthesis` reads the newest. Pure.

They make no versions by themselves, and nothing waits for them: each is an aggregate by itself, whose state is a count.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, JournalledConsumer, Offered
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import PROMPTS, Prompts
from fleet_protocol.prompt_plan import LEVELS, MOST_MAGNITUDE, PromptPlan
from fleet_protocol.task_description import TaskDescription


class PromptFacts(msgspec.Struct, frozen=True, gc=False):
    """What the journal tells of prompts without being asked for their bytes."""

    level: str
    classes: int
    style: str


class PromptTally(msgspec.Struct, frozen=True):
    """What an aggregate holds: how many prompts have come for the task."""

    messages: int = 0


def admit(offered: Offered[Prompts]) -> Admitted[PromptFacts, int]:
    """Check that the task asks for such prompts, and that samples could have them.

    Raises:
        ProtocolError: the reason for which nothing can be made of them.
    """
    prompts, plan = offered.payload, _plan(offered.task)
    if LEVELS.index(prompts.level) > LEVELS.index(plan.level):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"prompts of the level {prompts.level}; {offered.task.task} takes {plan.level} at most",
        )
    _check_magnitudes(prompts.magnitudes, offered.task)
    if not prompts.style.isprintable():
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "a style with characters that can't be printed")
    if (moments := moments_of(prompts, offered.task)) is not None:
        _check_moments(moments, prompts.magnitudes, plan)
    told = sum(bool(each) for each in prompts.magnitudes)
    return Admitted(PromptFacts(prompts.level, told, prompts.style), 1)


def moments_of(prompts: Prompts, task: TaskDescription) -> ClassStatistics | None:
    """Counts, means and variances of each group, `PromptPlan.groups` for each class; None at the level `class`.

    Raises:
        ProtocolError: they are not what the task says.
    """
    groups = _plan(task).groups(prompts.level)
    if not groups:
        if prompts.packed:
            raise ProtocolError(Reason.WRONG_SHAPE, "moments at the level class, which has none")
        return None
    return decode_class_statistics(
        prompts.packed, task.label.classes * groups, task.feature_count, "float16", "gaussian"
    )


def _plan(task: TaskDescription) -> PromptPlan:
    if task.prompts is None:
        raise ProtocolError(Reason.MALFORMED, f"{task.task} asks for no prompts; follow its manifest")
    return task.prompts


def _check_magnitudes(magnitudes: bytes, task: TaskDescription) -> None:
    if len(magnitudes) != task.label.classes:
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"prompts of {len(magnitudes)} classes; {task.task} has {task.label.classes}"
        )
    if not 1 <= max(magnitudes) <= MOST_MAGNITUDE:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"the largest magnitude of a class is {max(magnitudes)}; 1 to {MOST_MAGNITUDE} are"
        )


def _check_moments(moments: ClassStatistics, magnitudes: bytes, plan: PromptPlan) -> None:
    """Every number is one that samples can have, so that what is drawn by them is finite."""
    of_class = moments.counts.reshape(len(magnitudes), -1).sum(axis=1)
    if not np.array_equal(of_class > 0, np.frombuffer(magnitudes, np.uint8) > 0):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "moments of other classes than those whose magnitudes are told")
    largest = float(np.abs(moments.means).max())
    lowest, highest = float(moments.spread.min()), float(moments.spread.max())
    rounding = 1 + float(np.finfo(np.float16).eps)
    if not (largest <= rounding * plan.largest_feature and lowest >= 0 and highest <= _most_variance(plan)):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"means up to {largest:g} and variances from {lowest:g} to {highest:g}; features are up to"
            f" {plan.largest_feature:g} (largest_feature), variances from 0 to {_most_variance(plan):g}",
        )


def _most_variance(plan: PromptPlan) -> float:
    return 4 * plan.largest_feature**2


def item(_: Offered[Prompts], _facts: PromptFacts) -> int:
    """A message, as it is counted."""
    return 1


def _buffer_size(_: TaskDescription) -> int:
    return 1


def _partial(_: bytes, messages: Sequence[int], _task: TaskDescription) -> int:
    return sum(messages)


def _finish(state: bytes, messages: int, _: TaskDescription) -> bytes:
    return msgspec.json.encode(PromptTally(read_tally(state).messages + messages))


def read_tally(state: bytes) -> PromptTally:
    """What an aggregate of prompts holds; nothing before the first."""
    return msgspec.json.decode(state, type=PromptTally) if state else PromptTally()


PROMPTS_CONSUMER = JournalledConsumer(PROMPTS, PromptFacts, admit, item, _buffer_size, _partial, _finish)
"""Of the kind `prompts`."""
