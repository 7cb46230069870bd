"""How versions travel to devices: the table `[downlink]` of a task."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.without_effect import UsedBy, check_used

Differences = Literal["lossy", "exact", "off"]


class DownlinkPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How versions travel to devices (docs/downlink.md)."""

    differences: Differences = "lossy"
    """`lossy`: weights are published rounded to a grid, and a device gets the integers between the version it has and
    the one it lacks; the coordinator goes on from the unrounded ones. `exact`: published unrounded, as the difference
    of their bits. `off`: as whole float32 files."""
    precision_bits: Annotated[int, msgspec.Meta(ge=-4, le=16)] = 2
    """For `lossy`: by so many bits the grid is finer than each tensor's magnitude in the bundle; coarser where it is
    negative."""

    def packs(self, version: int) -> bool:
        """Whether a version travels packed. Unless rounded, version 0 is the bundle's own file, with any header."""
        return self.differences == "lossy" or (self.differences == "exact" and version > 0)


USED_BY: Final[UsedBy] = {"precision_bits": ("differences", ("lossy",))}
"""Settings that mean something only where another one has one of these values."""


def check_downlink(plan: DownlinkPlan, name: str) -> None:
    """Raise `ConfigurationError` if a setting has no effect; `name` is the file."""
    check_used(plan, USED_BY, "downlink", name)
