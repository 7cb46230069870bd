"""Which helpers a device does without for a while, as what they did was of no use to it. Pure.

Times are seconds on any clock that only grows.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.kinds import SessionReason
from fleet_protocol.limits import MAX_HELPERS_LEFT_OUT

FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 3600.0
"""Doubles from first to longest, until a round succeeds with the helper."""

BLAMED: Final = frozenset({SessionReason.HELPER_FAILED, SessionReason.MALFORMED, SessionReason.UNANSWERED})
"""Ends of a session that are the helper's doing, whatever it has answered before. One that has lost its connection may
be there again at once."""


@dataclass(frozen=True, slots=True)
class _LeftOut:
    why: str
    seconds: float
    until: float


class LeftOutHelpers:
    """By name, at most `MAX_HELPERS_LEFT_OUT`: of more, those are forgotten whose time is over first."""

    def __init__(self) -> None:
        self._helpers: dict[str, _LeftOut] = {}

    def blame(self, helper: str, why: str, now: float) -> float:
        """Do without a helper, longer each time; returns for how many seconds."""
        last = self._helpers.pop(helper, None)
        seconds = min(2 * last.seconds, LONGEST_SECONDS) if last else FIRST_SECONDS
        while len(self._helpers) >= MAX_HELPERS_LEFT_OUT:
            del self._helpers[min(self._helpers, key=lambda name: self._helpers[name].until)]
        self._helpers[helper] = _LeftOut(why, seconds, now + seconds)
        return seconds

    def forgive(self, helper: str) -> None:
        """A round has succeeded with it."""
        self._helpers.pop(helper, None)

    def at(self, now: float) -> tuple[str, ...]:
        """Those that the device does without."""
        return tuple(name for name, each in self._helpers.items() if now < each.until)

    def words(self, now: float) -> str:
        """Why, and for how long, for people; empty where there is none."""
        said = (
            f"{name} is left out for {self._helpers[name].until - now:.0f} s ({self._helpers[name].why})"
            for name in self.at(now)
        )
        return "; ".join(said)
