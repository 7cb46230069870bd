"""What becomes of suspicious updates: the table `[aggregation.quarantine]`, and what a task without it has. Pure."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.robust_plan import check_single_updates

if TYPE_CHECKING:
    from fleet_protocol.aggregation_plan import AggregationPlan
    from fleet_protocol.task_description import TaskDescription

USUAL_THRESHOLD: Final = 3.5
"""Of Iglewicz & Hoaglin 1993, whose robust z-score this is."""
LARGEST_THRESHOLD: Final = 1_000
FEWEST_OTHERS: Final = 5
"""Devices that an update is compared with: fewer can't say which is the unusual one."""


class QuarantinePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What becomes of an update that is far longer than what other devices sent last, or points away from it
    (docs/robustness.md).
    """

    threshold: Annotated[float, msgspec.Meta(gt=0, le=LARGEST_THRESHOLD)] = USUAL_THRESHOLD
    """In robust deviations (1.4826 times the median distance from the median): what is farther than so many from what
    other devices sent last is suspicious."""
    action: Literal["hold", "temper", "temper_on_harm", "off"] = "hold"
    """`hold`: it is held back until an operator releases or drops it, or it is staler than `max_staleness`. `temper`:
    all that are suspicious count together as much as one device. `temper_on_harm`: likewise, for as long as it takes
    once devices find the model much worse than it was. `off`: all count. A task without this table has
    `temper_on_harm`, where the coordinator sees whole single updates and the strategy takes their plain mean."""


USUAL: Final = QuarantinePlan(action="temper_on_harm")
"""What a task has that does not say it."""
PLAINLY: Final = ("fedavg",)
"""Strategies that are baselines, as published: all count unless the task says otherwise."""


def suspected_by(task: "TaskDescription") -> QuarantinePlan | None:
    """By what updates of a task are held or tempered; None where none are."""
    plan = task.aggregation
    if not isinstance(plan.quarantine, msgspec.UnsetType):
        return plan.suspects
    if plan.rule is not None or plan.strategy in PLAINLY:
        return None
    try:
        check_quarantine(msgspec.structs.replace(plan, quarantine=USUAL), "")
        check_single_updates(task, "aggregation.quarantine", "")
    except ConfigurationError:
        return None
    return USUAL


def check_quarantine(plan: "AggregationPlan", name: str) -> None:
    """Check that the table means something, and that what is held may still count later; `name` is the file.

    Raises:
        ConfigurationError: it never could, and what to write.
    """
    if plan.suspects is None:
        if plan.quarantine != QuarantinePlan(action="off"):
            raise ConfigurationError(
                f'{name}: [aggregation.quarantine] has a threshold, and with action = "off" nothing is looked for;'
                " leave one of them out"
            )
        return
    if plan.strategy in ("ef21", "posterior"):
        raise ConfigurationError(
            f"{name}: [aggregation.quarantine] holds updates back or tempers them, and with aggregation.strategy"
            f" {plan.strategy!r} device and coordinator keep the same estimate, so that none may be missing; leave one"
            " of them out"
        )
    if plan.holds and not plan.max_staleness:
        raise ConfigurationError(
            f"{name}: [aggregation.quarantine] holds updates back until somebody has looked at them, and with"
            " aggregation.max_staleness = 0 none may count after the next version; raise it, or write"
            ' action = "temper"'
        )
