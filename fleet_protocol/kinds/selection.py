"""What a manifest tells devices that are to find out by themselves whether they train for its version."""

import math
from typing import Annotated

import msgspec

from fleet_protocol.cohort import EVERYONE

Amount = Annotated[float, msgspec.Meta(ge=0)]


class Selection(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """For tasks with `[selection]`: a device trains whose utility is `least` or more, by its own account; every device
    with a `least` of 0 and a `drawn_below` of 2^32.

    `drawn_below` is for `fleet_protocol.cohort.is_asked`: of devices that have never trained, and with
    `power_of_choice` of all, only those may that are drawn so. `mean_updates` is how many a device that takes part has
    sent of the bundle, `version_seconds` how long a version takes to come, 0 where that is not known.
    """

    least: Amount
    drawn_below: Annotated[int, msgspec.Meta(ge=0, le=EVERYONE)]
    mean_updates: Amount
    version_seconds: Amount

    @property
    def takes_everybody(self) -> bool:
        """Whether every device may train, as often as it likes."""
        return self.least == 0 and self.drawn_below == EVERYONE

    def __post_init__(self) -> None:
        """Raise ValueError for what no figure compares with: nobody would ever train."""
        for name in ("least", "mean_updates", "version_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, which is no number to compare with")
