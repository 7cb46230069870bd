"""How a device shares the training of a task with a helper: settings. Pure."""

import msgspec

from fleet_protocol.configuration import PublicKey, Seconds, Text

WHOLE_BY_MEMORY = "auto"
NEVER = "off"


class SplitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a helper may run the middle of the model, where the task allows it (docs/split-learning.md)."""

    cut: Text = WHOLE_BY_MEMORY
    """`auto`: the device trains alone where that fits `memory_limit_mib` of `[worker]`, and else with the cut that
    sends least of those that fit. `off`: always alone. Or the name of one of the task's cuts."""
    trusted_helpers: list[PublicKey] = []
    """Public keys (64 hex digits) of the helpers that this device works with, as `edgeflock-helper key` prints them on
    each. Empty: every helper that the fleet's operator allows."""
    answer_seconds: Seconds = 90.0
    """A helper that leaves a step without an answer for so long is given up for another one. Raise it where a
    mini-batch takes longer on its way over a slow link."""
