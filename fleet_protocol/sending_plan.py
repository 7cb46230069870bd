"""Which rounds a device sends: the table `[sending]` of a task."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.without_effect import UsedBy, check_used

SendingRule = Literal["always", "changed", "relevant", "better"]


class SendingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rounds a device sends (docs/sending.md)."""

    rule: SendingRule = "always"
    """`always`: every one. `changed`: those whose change has a norm of at least `threshold` times the device's own
    running mean. `relevant`: those of whose signs at least the share `threshold` agrees with the last global change.
    `better`: those that raise the share of right answers on the device's own validation samples by at least
    `threshold`, or lower their loss by that share of it where there are no right answers."""
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """0 to 1; what it is compared with depends on the rule."""


ALWAYS: Final = SendingPlan()
"""The default, and not written: only this very object is known as that."""


USED_BY: Final[UsedBy] = {"threshold": ("rule", ("changed", "relevant", "better"))}
"""Settings that mean something only where another one has one of these values."""

SENDS_ALL_AT_0: Final = ("changed", "relevant")
"""Rules that every round agrees with where `threshold` is 0."""


def check_sending(plan: SendingPlan, feedback: str, validation_share: float, name: str) -> None:
    """Raise `ConfigurationError` where a setting has no effect, or a rule can't work beside the task's others."""
    check_used(plan, USED_BY, "sending", name)
    if plan.rule in SENDS_ALL_AT_0 and not plan.threshold:
        raise ConfigurationError(
            f"{name}: sending.rule is {plan.rule!r}, and with sending.threshold 0 every round is sent all the same;"
            " write a threshold above 0 and up to 1, such as 0.5, or leave [sending] out"
        )
    if plan.rule == "changed" and feedback == "ef21":
        raise ConfigurationError(
            f"{name}: sending.rule is 'changed' and update.feedback 'ef21', whose estimate follows what was sent;"
            " take the feedback 'residual', or the rule 'relevant'"
        )
    if plan.rule == "better" and not validation_share:
        raise ConfigurationError(
            f"{name}: sending.rule is 'better', which needs validation samples: training.validation_share is 0;"
            " set it to 0.1, say"
        )
