"""How a task's updates are compressed."""

from typing import Annotated, Final, Literal

import msgspec

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
