"""How many updates the next version takes where the task leaves it to the fleet. Pure.

    devices = those of which the last `VERSIONS_LOOKED_AT` versions hold an update
              or, before there are so many versions, all that are approved if these are more
    together = the most of them whose newest update began with one version
    size = the larger one of devices * SHARE and together * SHARE_TOGETHER, from SMALLEST_BUFFER to LARGEST_BUFFER

docs/decisions/buffer-follows-the-fleet.md
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from fleet_protocol.aggregation_plan import SMALLEST_BUFFER

SHARE = 0.1
"""Of the devices that take part: what a device remembers, or is remembered by, is then about ten versions old."""

SHARE_TOGETHER = 0.5
"""Of the devices that trained at the same time: a fleet that wakes at one hour makes two versions of that, and not ten
that each go the whole way from where all of them began."""

LARGEST_BUFFER = 256
"""Updates. They wait decoded in memory, and the mean of more is hardly better."""

VERSIONS_LOOKED_AT = 40
"""Versions of a tenth of the fleet each: all but the rarest devices are in them."""

TIMES_ROUND = 2
"""When so many updates wait for each device that still sends, all of them have spoken."""

MOST_ALONG = 4
"""Times the buffer's size: when so many wait, they make a version although those that take a place are too few."""

UPDATES_LOOKED_AT = 64
"""The last ones: who still sends is among them. One device alone can't fill them (`admission.shares`) unless the others
are gone."""


class Held(NamedTuple):
    """A device's newest update in a version: that version, and the one that the update began with."""

    version: int
    began_with: int


@dataclass(frozen=True, slots=True)
class Participants:
    """The devices that take part in a task, by name."""

    newest: Mapping[str, Held] = field(default_factory=dict)

    def after(self, version: int, began_with: Mapping[str, int]) -> "Participants":
        """Those once a version is made of updates of devices, which `began_with` these versions, without those that
        none of the last versions holds.
        """
        newest = {**self.newest, **{device: Held(version, began) for device, began in began_with.items()}}
        oldest = version - VERSIONS_LOOKED_AT
        return Participants({device: held for device, held in newest.items() if held.version > oldest})

    def buffer_size(self, approved: int = 0) -> int:
        """Updates that the next version takes; `approved` devices are known where there are few versions to tell by."""
        devices = max(len(self.newest), approved)
        together = max(Counter(held.began_with for held in self.newest.values()).values(), default=0)
        size = math.ceil(max(SHARE * devices, SHARE_TOGETHER * together))
        return min(LARGEST_BUFFER, max(SMALLEST_BUFFER, size))


def is_full(taken: int, along: int, size: int) -> bool:
    """Whether a buffer is, in which `taken` updates take a place, and others go `along` with them: those of helpers,
    which bring what the devices' own updates lack, and make a version no larger.
    """
    return taken >= size or taken + along >= MOST_ALONG * size


def full_at(take_places: Iterable[bool], size: int) -> int | None:
    """How many of the oldest updates that wait fill a buffer; None while they are too few."""
    taken = 0
    for count, takes_place in enumerate(take_places, 1):
        taken += takes_place
        if is_full(taken, count - taken, size):
            return count
    return None


def has_gone_round(waiting: int, senders: Iterable[str]) -> bool:
    """Whether the updates that wait are all that can be expected although they are fewer than the buffer takes: most of
    the fleet may have gone away, and nothing ever waits for it. `senders` are those of the last updates, newest first:
    they are looked at until too many differ.
    """
    if waiting < SMALLEST_BUFFER:
        return False
    most, looked_at = waiting // TIMES_ROUND, islice(senders, UPDATES_LOOKED_AT)
    seen = set(islice(looked_at, most + 1))  # mostly all differ, and no more of them are looked at
    if len(seen) <= most:
        seen.update(looked_at)
    return len(seen) <= most
