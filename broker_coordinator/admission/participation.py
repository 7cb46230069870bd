"""Whether a device's update counts now, in a task whose versions hide each device. Pure.

What such versions tell of a device is bounded by in how many of them its updates count, and how far apart these are.
"""

from collections.abc import MutableMapping

import msgspec

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.privacy.device_privacy import DevicePrivacy


class Participation(msgspec.Struct, frozen=True, gc=False):
    """Of one device in one task: `count` of its updates count or will, the last of them in the sum `last`, from 1."""

    count: int = 0
    last: int = 0

    def again(self, number: int) -> "Participation":
        """Once another one counts, in the sum `number`."""
        return Participation(self.count + 1, number)


Participations = MutableMapping[str, Participation]
"""By device."""


def why_spent(plan: DevicePrivacy, made: int, *, renewed: bool) -> str:
    """Why a task makes no more versions, in words; empty while it does. `made`, `renewed` as in `NoiseSeries`."""
    if renewed:
        return (
            "its generation was renewed, so sums may have been told that this database does not know, and"
            " [privacy.devices] could not be kept: publish another bundle, whose epsilon adds up with this one's"
        )
    if made >= plan.versions:
        return (
            f"it has made all {plan.versions} versions that [privacy.devices] was planned for: use its model, or export"
            " it anew from that and publish it, whose epsilon adds up with this one's"
        )
    return ""


def require_turn(device: str, task: str, plan: DevicePrivacy, before: Participation, number: int) -> None:
    """Check that one more update of a device may count in the sum `number`.

    Raises:
        ProtocolError: `TOO_SOON` or `PRIVACY_SPENT`.
    """
    if before.count >= plan.at_most:
        raise ProtocolError(
            Reason.PRIVACY_SPENT,
            f"{before.count} updates of {device} count in {task}, and privacy.devices.at_most is {plan.at_most}: no"
            " more is told of it",
        )
    if before.count and number - before.last < plan.versions_between:
        raise ProtocolError(
            Reason.TOO_SOON,
            f"the last update of {device} counts in sum {before.last} of {task}, the next one may from"
            f" {before.last + plan.versions_between} on (privacy.devices.versions_between = {plan.versions_between}),"
            f" and this is {number}: wait for newer versions",
        )
