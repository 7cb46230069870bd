"""Whether a device trains now, in a task whose versions hide each device: its update would not count before. Pure.

The coordinator enforces it (`broker_coordinator.admission.participation`); here it is foreseen, so that no round is
in vain.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.privacy.device_privacy import DevicePrivacy


@dataclass(frozen=True, slots=True)
class Turns:
    """This device's updates of a bundle that count, or wait for a receipt: how many, and the newest version that was
    known when the last of them was made, or had its receipt.
    """

    count: int = 0
    version: int = 0


NO_TURNS: Final = Turns()


def why_not_yet(plan: DevicePrivacy, turns: Turns, newest: int, *, waiting: int) -> str | None:
    """Why no round begins now, in words; None where one may. `newest` is the newest version that is known, `waiting`
    are updates of the task without a receipt.
    """
    if turns.count >= plan.at_most:
        return (
            f"{turns.count} updates of this device count, and the task takes no more of one device"
            f" (privacy.devices.at_most = {plan.at_most})"
        )
    if waiting:
        return "its last update waits for its receipt, and the task takes few of one device"
    if turns.count and newest < turns.version + plan.versions_between:
        return (
            f"its last update counts behind version {turns.version}, and the next one may behind"
            f" {turns.version + plan.versions_between} (privacy.devices.versions_between = {plan.versions_between})"
        )
    return None
