"""What must hold of a device at any moment of its month, and at the end."""

import gc
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from broker_coordinator.storage.records import JournalledPayload
from fleet_protocol.limits import KIB, MIB
from tests.month.device import MonthDevice

HOUR = 3600.0
LONGEST_WITHOUT_ROUND = 50 * HOUR
"""A device that takes samples trains at least so often, whatever its clock shows: one schedule is for once a day, and a
power cut may come between its time and its round."""
LARGEST_DATABASE_BYTES = 512 * KIB
LARGEST_LOG_BYTES = 5 * MIB
"""SQLite writes its log into the database at 1,000 pages, of 4 KiB each."""
LARGEST_CACHE_BYTES = 64 * KIB
LARGEST_GROWTH_BYTES = 4 * MIB
"""Of what the product holds in memory, from the sixth day to the end."""
PRODUCT = ("edge_agent", "broker_coordinator", "fleet_protocol", "fleet_host", "bundle_runtime")


def check_conservation(device: MonthDevice, accepted: Sequence[JournalledPayload]) -> None:
    """Nothing is lost, and nothing counts twice: samples, and what was learned of them."""
    assert device.card.database is not None
    device.card.ledger.check(device.card.database.held(), [row for row in accepted if row.device == device.name])
    device.check_samples()


def check_room(device: MonthDevice) -> None:
    """What its files take is bounded."""
    state = device.configuration.state_folder
    for name in ("agent.db", "samples.db"):
        assert _size(state / name) <= LARGEST_DATABASE_BYTES, f"{name} of {device.name} has {_size(state / name)} bytes"
        log = state / f"{name}-wal"
        assert _size(log) <= LARGEST_LOG_BYTES, f"{log.name} of {device.name} has {_size(log)} bytes"
    cached = sum(map(_size, (state / "blobs").iterdir()))
    assert cached <= LARGEST_CACHE_BYTES, f"blobs of {device.name} have {cached} bytes"


def check_rest(device: MonthDevice) -> None:
    """With a link that works, everything was delivered; and its agent never ended by itself."""
    assert device.failures == []
    assert device.card.database is not None
    assert device.card.database.waiting() == 0, f"{device.name}: something still waits for a receipt"


def longest_without_round(device: MonthDevice, dark_from: float, dark_until: float) -> float:
    """In seconds, but for where it touches a time in which the device may have had no link for long."""
    pauses = pairwise(device.worker.began)
    return max(end - begin for begin, end in pauses if end <= dark_from or begin >= dark_until)


def check_rounds(device: MonthDevice, dark_from: float, dark_until: float) -> None:
    """It never stopped training for long."""
    longest = longest_without_round(device, dark_from, dark_until)
    assert longest <= LONGEST_WITHOUT_ROUND, f"{device.name} did not train for {longest / HOUR:.0f} hours"


class Growth:
    """What the product's own lines have allocated since the sixth day, and still hold."""

    bytes: int | None = None

    def begin(self) -> None:
        """Count from now on."""
        if not tracemalloc.is_tracing():
            gc.collect()
            tracemalloc.start()

    def end(self) -> None:
        """Look; raises AssertionError where it is too much."""
        gc.collect()
        filters = [tracemalloc.Filter(True, f"*/{package}/*") for package in PRODUCT]
        held = tracemalloc.take_snapshot().filter_traces(filters).statistics("lineno")
        tracemalloc.stop()
        self.bytes = sum(each.size for each in held)
        assert self.bytes <= LARGEST_GROWTH_BYTES, f"{self.bytes} bytes are held more than on day 6: {held[:10]}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
