"""Reads what waits in the journal; payloads of which no item can be made are set aside."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.set_aside import Failure, Place, SetAside
from broker_coordinator.serving.waiting import Placed, WaitingPayload
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.records import JournalledPayload, items_together
from fleet_protocol.keys import KeyRing

READ_TOGETHER: Final = 500
"""Payloads that are decoded together, and whose envelopes are in memory at a time."""


class WaitingRows:
    """`keys` open encrypted payloads."""

    def __init__(self, journal: Journal, keys: KeyRing, set_aside: SetAside) -> None:
        self._journal = journal
        self._keys = keys
        self._set_aside = set_aside

    def read(self, positions: Sequence[int], tasks: Mapping[str, ServedTask]) -> list[Placed]:
        """What waits at these positions, of these tasks.

        Raises:
            JournalUnavailableError: the database failed; nothing was set aside.
        """
        found: list[Placed] = []
        failures: dict[Place, list[Failure]] = {}
        passed = Counter[Place]()
        for place, row, item in self._items(positions, tasks):
            if isinstance(item, Exception):
                failures.setdefault(place, []).append(Failure.of(row, item))
            else:
                facts, suspicion = row.read_facts(), row.suspicion or ""
                waiting = WaitingPayload(row.position, row.device, row.staleness, facts, item, suspicion)
                found.append((*place, waiting))
                passed[place] += 1
        for place, failed in failures.items():
            self._set_aside.unread(place, failed, passed[place], tasks[place[0]].description)
        return found

    def _items(
        self, positions: Sequence[int], tasks: Mapping[str, ServedTask]
    ) -> Iterator[tuple[Place, JournalledPayload, Any]]:
        """Rows, oldest first of each task and kind, each with its item, or with why none can be made of it."""
        rows = self._journal.at_positions(positions)
        while some := list(islice(rows, READ_TOGETHER)):
            places: dict[Place, list[JournalledPayload]] = {}
            for row in some:
                places.setdefault((row.task, row.kind), []).append(row)
            for place, of_place in places.items():
                for row, item in items_together(of_place, tasks[place[0]].description, self._keys):
                    yield place, row, item
