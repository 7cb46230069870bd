"""How much longer versions take as devices are selected, and how many more are asked for that. Pure.

A threshold fails in ways that the coordinator can't see: the devices that it asks for are off, have no new samples, or
have lied. It shows in one thing, the time that versions take. So everybody is asked for some versions first and now and
again, which shows how long versions take then; for the others, as many more are asked as it takes to come near that.
Where that has become everybody, it is measured anew: versions that take longer all the same take that long.

Versions are counted in turns: so many as hold an update of every device. Of fast devices many updates come at once, and
then none for as long as a round takes: no less than a turn tells how fast versions come.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

FEWEST_IN_TURN: Final = 3
MOST_IN_TURN: Final = 100
VERSIONS_TIMED: Final = 20
OPEN_TURNS: Final = 2
"""Turns for which everybody is asked: one in which the updates of those come that began before, and one to measure."""
FIRST_OPEN_TURNS: Final = 1
"""Likewise at first, where nothing began before: what is learned soonest is learned then."""
SELECTED_TURNS: Final = 20
"""Turns between them."""
SLOWER: Final = 1.15
"""Times as long as usual, a version may take."""
WIDER: Final = 1.25
"""Times as many devices are asked after a turn that took longer, and at once where nobody came in time."""
NARROWER: Final = 0.9
"""Likewise after one that did not."""
PATIENCE: Final = 3.0
"""Times as long as a version usually takes, the coordinator waits for those that it asks."""
SHORTEST_PATIENCE: Final = 1.0
"""Seconds; a coordinator that catches up with its journal makes many versions at once."""
MOST_TIMES_OTHERS: Final = 4
"""The longest version of a turn counts as so many times the mean of the others: a night tells nothing of the day."""


@dataclass(slots=True)
class SelectionPace:
    """`width` is how many times as many devices are asked as if all came. `_seconds` are how long the last versions
    took, the newest last, `_usual` is how long one takes when everybody is asked, and `_versions` are those since then,
    of which everybody is asked for `_open_turns`. `is_widest`: as many are asked now as there are, and were for the
    last `_widest` versions.
    """

    width: float = 1.0
    is_widest: bool = False
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_IN_TURN))
    _usual: float = 0.0
    _versions: int = 0
    _open_turns: int = FIRST_OPEN_TURNS
    _widest: int = 0

    @property
    def version_seconds(self) -> float:
        """How long a version takes to come; 0 where that is not known."""
        last = self._last(VERSIONS_TIMED)
        return sum(last) / len(last) if last else 0.0

    def asks_everyone(self, turn: int) -> bool:
        """Whether the next version is one of those for which everybody is asked."""
        return self._versions < self._open_turns * turn

    def version_made(self, seconds: float, turn: int, *, in_time: bool) -> None:
        """One more is made, after so many seconds. `in_time`: before everybody had to be asked after all."""
        was_open = self.asks_everyone(turn)
        self._seconds.append(seconds)
        self._versions += 1
        self._widest = self._widest + 1 if self.is_widest else 0
        recent = usual_seconds(self._last(turn))
        if was_open or self._widest >= turn:
            self._usual = recent
        if was_open:
            return
        if not in_time:
            self.width *= WIDER
        else:
            step = WIDER if recent > SLOWER * self._usual else NARROWER
            self.width = max(1.0, self.width * math.pow(step, 1 / turn))
        if self._versions >= (self._open_turns + SELECTED_TURNS) * turn:
            self._versions, self._open_turns = 0, OPEN_TURNS

    def _last(self, count: int) -> list[float]:
        return list(islice(reversed(self._seconds), count))

    def patience(self, most_seconds: float) -> float:
        """How many seconds a version waits for those that it asks, before it asks everybody."""
        return min(most_seconds, max(SHORTEST_PATIENCE, PATIENCE * self._usual))


def turn_of(devices: int, buffer_size: int) -> int:
    """In how many versions each of so many devices has an update."""
    return min(MOST_IN_TURN, max(FEWEST_IN_TURN, math.ceil(devices / buffer_size)))


def usual_seconds(versions: Sequence[float]) -> float:
    """The mean time of some versions, at least one."""
    longest, others = max(versions), sum(versions) - max(versions)
    if len(versions) > 1 and others > 0:
        longest = min(longest, MOST_TIMES_OTHERS * others / (len(versions) - 1))
    return (others + longest) / len(versions)
