"""Prompts: checks what a device says of its samples, and counts them; `prompt_synthesis` reads the newest. Pure.

They make no versions by themselves, and nothing waits for them: each is an aggregate by itself, whose state is a count.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, JournalledConsumer, Offered
from broker_coordinator.consumers.possible_statistics import check_possible
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import PROMPTS, Prompts
from fleet_protocol.prompt_plan import LEVELS, MOST_MAGNITUDE, PromptPlan
from fleet_protocol.solved_head import SolvedHead
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
    prompts = offered.payload
    moments_of(prompts, offered.task)  # refuses what they can't be
    told = sum(bool(each) for each in prompts.magnitudes)
    return Admitted(PromptFacts(prompts.level, told, prompts.style), 1)


def moments_of(prompts: Prompts, task: TaskDescription) -> ClassStatistics | None:
    """Counts, means and variances of each group, `PromptPlan.groups` for each class, of prompts in which all is as the
    task asks for it; None at the level `class`.

    Raises:
        ProtocolError: the task asks for no such prompts, or no samples could have them.
    """
    plan = _plan(task)
    if LEVELS.index(prompts.level) > LEVELS.index(plan.level):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"prompts of the level {prompts.level}; {task.task} takes {plan.level} at most"
        )
    _check_magnitudes(prompts.magnitudes, task)
    if not prompts.style.isprintable():
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "a style with characters that can't be printed")
    if (moments := _moments(prompts, task, plan.groups(prompts.level))) is not None:
        _check_moments(moments, prompts.magnitudes, task, plan)
    return moments


def _moments(prompts: Prompts, task: TaskDescription, groups: int) -> ClassStatistics | None:
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


def _check_moments(moments: ClassStatistics, magnitudes: bytes, task: TaskDescription, plan: PromptPlan) -> None:
    """They are of the classes that are told, and what is drawn by them is finite."""
    of_class = moments.counts.reshape(len(magnitudes), -1).sum(axis=1)
    if not np.array_equal(of_class > 0, np.frombuffer(magnitudes, np.uint8) > 0):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "moments of other classes than those whose magnitudes are told")
    told = SolvedHead(solver="gaussian", precision="float16", largest_feature=plan.largest_feature)
    check_possible(moments, task, told)


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
