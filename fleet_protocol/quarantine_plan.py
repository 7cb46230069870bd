"""What becomes of suspicious updates: the table `[aggregation.quarantine]`. Pure."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from fleet_protocol.aggregation_plan import AggregationPlan

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
    action: Literal["hold", "temper"] = "hold"
    """`hold`: it is held back until an operator releases or drops it, or it is staler than `max_staleness`. `temper`:
    all that are suspicious count together as much as one device."""


def check_quarantine(plan: "AggregationPlan", name: str) -> None:
    """Check that the table means something, and that what is held may still count later; `name` is the file.

    Raises:
        ConfigurationError: it never could, and what to write.
    """
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
