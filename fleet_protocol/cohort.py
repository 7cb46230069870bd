"""Who takes part in a round of a synchronous task: every device finds out by itself, from the manifest.

A device draws the first four bytes of SHA-256("TASK/VERSION/DEVICE"), as a big-endian number, and is asked if they are
below the manifest's `selection_threshold`. So every round draws its own devices, evenly, and the manifest need not list
them.
"""

import hashlib
from collections.abc import Iterable

EVERYONE = 2**32
"""The `selection_threshold` that asks every device."""


def is_asked(task: str, version: int, device: str, below: int) -> bool:
    """Whether a device takes part in the round that makes the version after `version`."""
    return _drawn(task, version, device) < below


def asking(count: int, task: str, version: int, devices: Iterable[str]) -> int:
    """The `selection_threshold` that asks so many of these devices, more where two draw the same; EVERYONE if fewer."""
    return RoundDraws(task, version).asking(count, devices)


class RoundDraws:
    """What devices draw for the round after one version; of each it is computed once, however often it is asked."""

    __slots__ = ("_drawn", "_task", "version")

    def __init__(self, task: str, version: int) -> None:
        self._task = task
        self.version = version
        self._drawn: dict[str, int] = {}

    def asking(self, count: int, devices: Iterable[str]) -> int:
        """As `asking`."""
        drawn = sorted(map(self._of, devices))
        return drawn[count - 1] + 1 if count < len(drawn) else EVERYONE

    def _of(self, device: str) -> int:
        drawn = self._drawn.get(device)
        if drawn is None:
            drawn = self._drawn[device] = _drawn(self._task, self.version, device)
        return drawn


def _drawn(task: str, version: int, device: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{task}/{version}/{device}".encode()).digest()[:4])
