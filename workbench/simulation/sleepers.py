"""What sleeping devices remember, in arrays: some two hundred bytes each."""

from array import array
from typing import Final

import msgspec

from edge_agent.core.selection import RoundFigures
from edge_agent.core.turns import Turns
from edge_agent.core.version_choice import KnownVersion
from workbench.simulation.device_memory import DeviceMemory

_INTEGERS: Final = ("newest_sample", "trained_through", "rounds", "withheld", "sequence", "cluster")
_FLOATS: Final = ("epochs", "usual_norm")
_VERSIONS: Final = ("known", "fetched", "held")
_NO_THRESHOLD: Final = -1


class Process(msgspec.Struct, frozen=True):
    """What a sleeping device has besides its memory: whether it `is_on`, and will be switched off by a crash; which
    start of its process this is; and on its connection the last manifest's selection threshold, if any, and whether it
    `has_heard` one.
    """

    is_on: bool
    will_crash: bool
    boot: int
    selection_threshold: int | None
    has_heard: bool


class Sleepers:
    """A row for each of so many `devices`: its memory, and its process. What waits in an outbox has no place here: such
    a device is awake.
    """

    def __init__(self, devices: int) -> None:
        new = DeviceMemory()
        nothing = bytes(8 * devices)
        self._boots = array("q", nothing)
        self._is_on = bytearray(devices)
        self._will_crash = bytearray(devices)
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

    def process(self, device: int) -> Process:
        """What its process is."""
        threshold = self._thresholds[device]
        return Process(
            is_on=bool(self._is_on[device]),
            will_crash=bool(self._will_crash[device]),
            boot=self._boots[device],
            selection_threshold=None if threshold == _NO_THRESHOLD else threshold,
            has_heard=bool(self._has_heard[device]),
        )

    def store(self, device: int, memory: DeviceMemory, process: Process) -> None:
        """It falls asleep with nothing in its outbox."""
        threshold = process.selection_threshold
        self._is_on[device] = process.is_on
        self._will_crash[device] = process.will_crash
        self._boots[device] = process.boot
        self._thresholds[device] = _NO_THRESHOLD if threshold is None else threshold
        self._has_heard[device] = process.has_heard
        self._is_enrolled[device] = memory.enrolled
        for name, integers in self._integers:
            integers[device] = getattr(memory, name)
        for name, floats in self._floats:
            floats[device] = getattr(memory, name)
        for name, versions in self._versions:
            versions[device] = getattr(memory, name)
        self._figures[device] = memory.figures
        for column, value in zip(self._turns, (memory.turns.count, memory.turns.version), strict=True):
            column[device] = value
