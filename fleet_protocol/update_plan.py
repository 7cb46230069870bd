"""How a task's updates are compressed."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.without_effect import UsedBy, check_used

Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class UpdatePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How what was learned is compressed; what is left out stays on the device. Formulas: `fleet_protocol.codec`."""

    keep_fraction: Fraction
    """At most this share of the entries travels."""
    quantisation: Literal["ternary", "float32", "float16", "int8", "int4", "sign"] = "ternary"
    """How a kept entry is written: `ternary` as a sign with one magnitude for each tensor, `sign` as a sign with one
    for all; the others as numbers of that size."""
    selection: Literal["top_k", "top_k_per_tensor", "threshold", "random_k", "dense"] = "top_k"
    """Which entries are kept: the largest of the whole vector (`top_k`) or of each tensor, those of magnitude
    `threshold` or more, random ones, or all (`dense`)."""
    threshold: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """For `threshold`: the smallest magnitude."""
    stochastic_rounding: bool = False
    """For `int8` and `int4`: round at random, right on average."""
    feedback: Literal["residual", "momentum", "ef21"] = "residual"
    """How the device remembers what was left out (docs/decisions/error-feedback.md): added to the next round
    (`residual`), also with momentum, or as EF21's estimate, which goes with the strategy `ef21` and no other."""
    feedback_momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    """Decay of the feedback `momentum`."""

    @property
    def draws(self) -> bool:
        """Whether something of it is random."""
        return self.selection == "random_k" or self.stochastic_rounding


WHOLE_UPDATES: Final = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")
"""Nothing is left out, or rounded."""

USED_BY: Final[UsedBy] = {
    "threshold": ("selection", ("threshold",)),
    "stochastic_rounding": ("quantisation", ("int8", "int4")),
    "feedback_momentum": ("feedback", ("momentum",)),
}
"""Settings that mean something only where another one has one of these values."""


def check_update(plan: UpdatePlan, name: str) -> None:
    """Raise `ConfigurationError` if a setting has no effect; `name` is the file."""
    check_used(plan, USED_BY, "update", name)
    if plan.selection == "dense" and plan.keep_fraction < 1:
        raise ConfigurationError(
            f"{name}: update.keep_fraction is {plan.keep_fraction:g}, but selection 'dense' keeps every entry; write"
            " keep_fraction = 1, or another selection, such as 'top_k'"
        )
    if plan.selection == "threshold" and not plan.threshold:
        raise ConfigurationError(
            f"{name}: update.selection is 'threshold', and every entry reaches update.threshold 0; write the smallest"
            " magnitude that is to travel as threshold, or take the selection 'top_k'"
        )
