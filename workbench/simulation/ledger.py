"""What a simulated fleet has sent and what became of it, counted as it happens."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec


class Point(msgspec.Struct, frozen=True):
    """The fleet at one moment.

    `first_bytes`: what devices are sent once, bundles and first weights. `score` is of the model to use: accuracy, or
    what the engine of the workload has.
    """

    virtual_seconds: float
    version: int
    updates: int
    uplink_bytes: int
    total_bytes: int
    first_bytes: int
    score: float


class Summary(msgspec.Struct, frozen=True):
    """A whole simulation. Bytes are of signed messages, by kind; MQTT, TCP and TLS come on top.

    `uplink_bytes` are the updates alone, as they were sent, repetitions included; `total_bytes` is everything.
    `reached` is the first point at the wanted score. `staleness` counts accepted updates by it.
    """

    devices: int
    seed: int
    virtual_seconds: float
    versions: int
    updates: int
    score: float
    reached: Point | None
    uplink_bytes: int
    total_bytes: int
    bytes_up: dict[str, int]
    bytes_down: dict[str, int]
    staleness: dict[int, int]
    refused: dict[str, int]
    crashes: int
    rounds_lost: int
    guard_refusals: int


@dataclass(slots=True)
class Ledger:
    """The counts behind a summary."""

    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    staleness: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    updates: int = 0
    crashes: int = 0
    rounds_lost: int = 0
    guard_refusals: int = 0

    @property
    def first_bytes(self) -> int:
        """What a device is sent once."""
        return self.down["bundle"] + self.down["first weights"]

    @property
    def total_bytes(self) -> int:
        """Everything, both ways."""
        return self.up.total() + self.down.total()

    def point(self, now: float, version: int, score: float) -> Point:
        """Where the fleet is."""
        return Point(now, version, self.updates, self.up["update"], self.total_bytes, self.first_bytes, score)
