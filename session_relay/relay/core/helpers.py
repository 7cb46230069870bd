"""Helpers that offer themselves, and which of them a session goes to. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from fleet_protocol.kinds import HelperOffer, OfferedTask, SessionReason
from fleet_protocol.limits import BOOT_SHIFT
from session_relay.relay.core.limits import HELPER_SILENCE_SECONDS, MAX_HELPERS


@dataclass(slots=True)
class Helper:
    """One that has offered itself: its last offer, and the `load` of sessions that it has or was asked for."""

    name: str
    offer: HelperOffer
    sequence: int
    seen_at: float
    load: int = 0

    @property
    def boot(self) -> int:
        """Which of the helper's lives has made the offer."""
        return self.sequence >> BOOT_SHIFT

    @property
    def has_room(self) -> bool:
        """Whether it would serve another session."""
        return self.load < self.offer.capacity


class Helpers:
    """By name."""

    def __init__(self) -> None:
        self._helpers: dict[str, Helper] = {}
        self.have_offered = False
        """Whether any has, so far."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._helpers)

    def get(self, name: str) -> Helper | None:
        """The helper of this name, if it offers itself."""
        return self._helpers.get(name)

    def has_room_for(self, name: str) -> bool:
        """Whether one of this name can be noted."""
        return name in self._helpers or len(self._helpers) < MAX_HELPERS

    def note(self, name: str, offer: HelperOffer, sequence: int, load: int, now: float) -> None:
        """Take in an offer, in place of the one before, of a helper that has so many sessions."""
        self.have_offered = True
        self._helpers[name] = Helper(name, offer, sequence, now, load)

    def remove(self, name: str) -> None:
        """Forget one that is gone."""
        self._helpers.pop(name, None)

    def silent(self, now: float) -> list[str]:
        """Those that have not offered themselves for too long."""
        return [name for name, each in self._helpers.items() if now >= each.seen_at + HELPER_SILENCE_SECONDS]

    def add_load(self, name: str, change: int) -> None:
        """Note that a session went to a helper, or is over."""
        if helper := self._helpers.get(name):
            helper.load += change

    def choose(self, task: OfferedTask, without: Collection[str]) -> Helper | SessionReason:
        """The least loaded helper, by its capacity, that serves the task and is none of `without`; else the reason."""
        serving = [each for each in self._helpers.values() if task in each.offer.tasks and each.name not in without]
        if not serving:
            return SessionReason.NO_HELPER
        free = [each for each in serving if each.has_room]
        if not free:
            return SessionReason.HELPER_BUSY
        return min(free, key=lambda each: (each.load / each.offer.capacity, each.name))
