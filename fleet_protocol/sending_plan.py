"""Which rounds a device sends: the table `[sending]` of a task."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError

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


def check_sending(plan: SendingPlan, feedback: str, validation_share: float, name: str) -> None:
    """Raise `ConfigurationError` where a rule can't work beside the task's other settings."""
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
