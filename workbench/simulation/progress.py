"""How far a simulation is: a line on a terminal every few seconds, with the time left."""

import sys
import time
from typing import Final

from rich.console import Console

from workbench.simulation.ledger import Point

SECONDS_BETWEEN_LINES: Final = 5.0
LEAST_SHARE: Final = 0.002
"""Of the virtual time, from which on the time left is told."""


class Progress:
    """Of a simulation of so many virtual `seconds`, which has `started` at that time of `time.monotonic`."""

    def __init__(self, console: Console, started: float, seconds: float) -> None:
        self._console = console
        self._started = started
        self._seconds = seconds
        self._next = started + SECONDS_BETWEEN_LINES if sys.stderr.isatty() else float("inf")
        self._newest: Point | None = None

    def show(self, point: Point) -> None:
        """There is a new point of the history."""
        self._newest = point
        self.tick(point.virtual_seconds)

    def tick(self, virtual_seconds: float) -> None:
        """So many virtual seconds are over."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        self._console.print(
            progress_line(self._newest, virtual_seconds, self._seconds, now - self._started), highlight=False
        )


def progress_line(point: Point | None, virtual_seconds: float, of_seconds: float, wall_seconds: float) -> str:
    """How far it is, after `wall_seconds`, and what is left if it goes on like this."""
    share = virtual_seconds / of_seconds
    parts = [f"{100 * share:.1f} %", f"{virtual_seconds / 3600:.2f} h"]
    if point is not None:
        parts += [f"version {point.version}", f"updates {point.updates}", f"score {point.score:.4f}"]
        parts += [f"epsilon {told:.3g} per {of}" for of, told in point.epsilon.items()]
    if share >= LEAST_SHARE:
        parts.append(f"{duration(wall_seconds / share - wall_seconds)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
