"""What sleeping devices remember, in arrays: some two hundred bytes each."""

from array import array
from typing import Final

from edge_agent.core.selection import RoundFigures
from edge_agent.core.turns import Turns
from edge_agent.core.version_choice import KnownVersion
from workbench.simulation.device_memory import DeviceMemory

_INTEGERS: Final = ("newest_sample", "trained_through", "rounds", "withheld", "sequence", "cluster")
_FLOATS: Final = ("epochs", "usual_norm")
_VERSIONS: Final = ("known", "fetched", "held")
_NO_THRESHOLD: Final = -1


class Sleepers:
    """A row for each of so many `devices`: its memory, and what its process knows besides. What waits in an outbox has
    no place here: such a device is awake.

    `boots` counts the starts of its process, `counted_at` is when its samples were counted last, and `awaited` how many
    of them it waits for, 0 for none. `is_on` and `crashes`, whether it will be switched off by a crash, are 0 or 1.
    """

    def __init__(self, devices: int) -> None:
        new = DeviceMemory()
        nothing = bytes(8 * devices)
        self.boots = array("q", nothing)
        self.counted_at = array("d", nothing)
        self.awaited = array("q", nothing)
        self.is_on = bytearray(devices)
        self.crashes = bytearray(devices)
        self._is_enrolled = bytearray(devices)
        self._has_heard = bytearray(devices)
        self._thresholds = array("q", [_NO_THRESHOLD]) * devices
        self._turns = array("q", nothing), array("q", nothing)
        self._integers = [(name, array("q", [getattr(new, name)]) * devices) for name in _INTEGERS]
        self._floats = [(name, array("d", [getattr(new, name)]) * devices) for name in _FLOATS]
        self._figures: list[RoundFigures | None] = [None] * devices
        self._versions: list[tuple[str, list[KnownVersion | None]]] = [(name, [None] * devices) for name in _VERSIONS]

    def memory(self, device: int) -> DeviceMemory:
        """What it remembers."""
        columns = (*self._integers, *self._floats, *self._versions)
        count, version = self._turns
        return DeviceMemory(
            enrolled=bool(self._is_enrolled[device]),
            turns=Turns(count[device], version[device]),
            figures=self._figures[device],
            **{name: column[device] for name, column in columns},
        )

    def in_cluster(self, device: int) -> bool:
        """Whether it is in one; what else a device has of its own keeps it awake."""
        return any(column[device] for name, column in self._integers if name == "cluster")

    def selection_threshold(self, device: int) -> int | None:
        """That of the last manifest which its process has read."""
        threshold = self._thresholds[device]
        return None if threshold == _NO_THRESHOLD else threshold

    def has_heard(self, device: int) -> bool:
        """Whether it has read a manifest on its connection."""
        return bool(self._has_heard[device])

    def store(self, device: int, memory: DeviceMemory, *, selection_threshold: int | None, has_heard: bool) -> None:
        """It falls asleep with nothing in its outbox."""
        self._is_enrolled[device] = memory.enrolled
        self._has_heard[device] = has_heard
        self._thresholds[device] = _NO_THRESHOLD if selection_threshold is None else selection_threshold
        for name, integers in self._integers:
            integers[device] = getattr(memory, name)
        for name, floats in self._floats:
            floats[device] = getattr(memory, name)
        for name, versions in self._versions:
            versions[device] = getattr(memory, name)
        self._figures[device] = memory.figures
        for column, value in zip(self._turns, (memory.turns.count, memory.turns.version), strict=True):
            column[device] = value
