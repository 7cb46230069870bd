"""Looks at the database once a second, in a thread: what pages are told of, and when devices were last heard."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from broker_coordinator.dashboard.database_at_hand import DatabaseAtHand
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_pages import count_devices
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.standing import read_decided, read_standing
from fleet_host.log_lines import log_line

LOOK_SECONDS: Final = 1.0
MOST_HEARD: Final = 100_000
"""Devices of which is remembered when they were heard; who was silent longest is forgotten first."""

logger = logging.getLogger(__name__)


class Signal(msgspec.Struct, frozen=True):
    """What tells pages that there is something new: not the news themselves, which each page asks for.

    `database` says in words why it can't be read; empty while it can.
    """

    versions: Mapping[str, int]
    waiting: Mapping[str, int]
    changes: int
    position: int
    devices: Mapping[str, int]
    database: str = ""


class Watch:
    """A thread that calls `tell` with an encoded `Signal` after each look."""

    def __init__(self, database: DatabaseAtHand, tell: Callable[[bytes], None]) -> None:
        self._database = database
        self._tell = tell
        self._position: int | None = None
        self._heard: dict[str, float] = {}
        self._is_failing = False
        self._stopping = threading.Event()
        self.since = time.time()
        """Seconds since 1970; payloads of before were not seen coming."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def heard(self) -> Mapping[str, float]:
        """When the last payload of each device came, in seconds since 1970, as far as that was seen."""
        return self._heard.copy()

    def look(self) -> None:
        """Look once, and tell."""
        try:
            signal = self._database.read(self._read)
        except JournalUnavailableError as error:
            signal = Signal({}, {}, 0, 0, {}, database=str(error))
            if not self._is_failing:
                logger.error(log_line("dashboard_database_unavailable", error=error))
        except Exception:  # what is damaged must not end the thread: pages say it, and it is tried again
            signal = Signal({}, {}, 0, 0, {}, database="it can't be read; see the coordinator's log")
            if not self._is_failing:
                logger.exception(log_line("dashboard_look_failed"))
        self._is_failing = bool(signal.database)
        self._tell(msgspec.json.encode(signal))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(LOOK_SECONDS)

    def _read(self, journal: JournalReader) -> Signal:
        standing = read_standing(journal.engine)
        if self._position is not None and standing.last_position > self._position:
            now = time.time()
            for device in read_decided(journal.engine, self._position):
                self._heard.pop(device, None)
                self._heard[device] = now
            while len(self._heard) > MOST_HEARD:
                del self._heard[next(iter(self._heard))]
        self._position = standing.last_position
        return Signal(
            {name: each.newest for name, each in standing.tasks.items()},
            {name: each.waiting for name, each in standing.tasks.items()},
            sum(standing.change_counters.values()),
            standing.last_position,
            {f"{state} {presence}": number for (state, presence), number in count_devices(journal.engine).items()},
        )
