"""How many different values there are in the fleet: linear counting (Whang, Vander-Zanden and Taylor 1990). Pure.

Each value falls into one of `SLOTS` by its hash. A device names the slots of at most `samples_per_device` of its
values, so that a device that lies fills as many and no more. HyperLogLog is smaller for billions of values, but there a
device may claim a rank that nobody has, in every register; and it does not add up, where slots do.
"""

import hashlib
import struct
from collections.abc import Sequence
from itertools import pairwise

from fleet_protocol.analytics.draws import Draws
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import AnalyticsReport, Query

SLOTS = 1 << 16
"""Half full at 45,000 different values; the error is then 1 in 300."""


def slot(query: Query, value: float | str) -> int:
    """Where a value falls, for this query alone: another query tells nothing of whether it was the same."""
    content = value.encode() if isinstance(value, str) else struct.pack("<d", value + 0.0)  # -0 is 0
    key = query.number.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "big") % SLOTS


def answer(query: Query, values: Sequence[float] | Sequence[str], draws: Draws) -> tuple[float, ...]:
    """What a device with these values sends: slots, in order. Of too many, which ones is drawn."""
    slots = sorted({slot(query, value) for value in values})
    while len(slots) > query.samples_per_device:
        slots.pop(draws.randrange(len(slots)))
    return tuple(map(float, slots))


def check(query: Query, report: AnalyticsReport) -> None:
    """Refuse what no device's values can be.

    Raises:
        ProtocolError: with what is wrong.
    """
    numbers = report.numbers
    if len(numbers) > query.samples_per_device:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"{len(numbers)} slots; one device may fill {query.samples_per_device}"
        )
    in_order = all(before < after for before, after in pairwise(numbers))
    if not in_order or any(not 0 <= number < SLOTS or number % 1 for number in numbers):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"slots are different whole numbers below {SLOTS}, in order")
