"""Finds a key that two devices use at once: a card that was copied, say.

Both number their updates on. One that comes second with a number is refused, and goes on behind the highest; then the
other comes second. A device whose database was restored is refused too, but what it sends afterwards is accepted, and
it is refused no more. So only refusals are counted that come again after something was accepted in between.
"""

from collections.abc import Iterable

from broker_coordinator.admission.decisions import Decision, Refused
from broker_coordinator.admission.fleet_view import FleetView
from fleet_protocol.errors import Reason

TURNS = 3
"""So often must a refusal follow an acceptance. A restored device whose connection breaks amid its refusals has one."""


class Twins:
    """Names each device once."""

    def __init__(self) -> None:
        self._turns: dict[str, tuple[int, int]] = {}
        """By device: its highest number at its last refusal, and how often that had grown since the one before."""

    def found(self, decisions: Iterable[Decision], view: FleetView) -> list[str]:
        """Devices that turn out to be two, from decided messages that `view` reflects."""
        names = []
        for decision in decisions:
            if isinstance(decision, Refused) and decision.reason is Reason.SEQUENCE_REUSED and decision.verified:
                device = decision.device or ""
                highest = view.highest_sequence(device)
                before, turns = self._turns.get(device, (highest, 0))
                self._turns[device] = highest, turns + (highest > before)
                if turns < TURNS <= turns + (highest > before):
                    names.append(device)
        return names
