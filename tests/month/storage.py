"""The shipped storage of a device, told to a ledger, on a card that may be full."""

import errno
import json
import random
import sqlite3
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.shell.samples.sample_retention import TURN_BITS
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.blob_cache import BlobCache
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from fleet_protocol.kinds import Outcome, Update, decode_payload
from tests.pair.ledger import Held, Ledger, Pieces

NO_LIMIT = 2**30
"""Pages."""


def limit_pages(connection: sqlite3.Connection, *, full: bool) -> None:
    """SQLite raises the limit to the pages in use, none of which is empty then: a full card takes not one page more."""
    if full:
        connection.execute("VACUUM")
    connection.execute(f"PRAGMA max_page_count = {1 if full else NO_LIMIT}")


@dataclass(slots=True)
class Card:
    """What outlives an agent's process: whether the card is full, and what is known of its contents."""

    ledger: Ledger = field(default_factory=Ledger)
    contents: dict[bytes, Pieces] = field(default_factory=dict)
    """Of each packed update, which pieces it holds."""
    full: bool = False
    refused_writes: int = 0
    forgotten: int = 0
    """Pieces of a bundle that the task has no longer: nothing else could be done with them."""
    database: "MonthDatabase | None" = None
    samples: "MonthStore | None" = None

    def pieces_in(self, payload: bytes) -> Pieces:
        """What an update holds."""
        return self.contents[decode_payload(payload, Update).packed]

    def forget_accepted_but(self, names: set[bytes]) -> int:
        """The coordinator has lost, by an operator's hand, what is not among `names`; returns how many pieces."""
        ledger = self.ledger
        lost = {piece for name in ledger.accepted - names for piece in ledger.signed[name]}
        ledger.accepted &= names
        ledger.learned -= lost
        return len(lost)

    def fill(self) -> None:
        """No page more can be written."""
        self._set_full(True)

    def free(self) -> None:
        """There is room again."""
        self._set_full(False)

    def _set_full(self, full: bool) -> None:
        self.full = full
        for store in (self.database, self.samples):
            if store is not None:
                store.limit(full=full)


class MonthDatabase(DeviceDatabase):
    """`agent.db`; what it commits is told to the card's ledger."""

    def __init__(self, card: Card, path: Path, first_boot: int, maximum_waiting_bytes: int) -> None:
        super().__init__(path, first_boot, maximum_waiting_bytes)
        self._card = card
        card.database = self
        self.limit(full=card.full)

    def limit(self, *, full: bool) -> None:
        """Let it refuse every write: its few rows would find room in pages that are there."""
        self._connection.execute(f"PRAGMA query_only = {int(full)}")

    def spool(self, finished: SpooledRound, sign: SignRow) -> list[OutboxRow]:
        """See `DeviceDatabase`."""
        ledger, before = self._card.ledger, self.held()
        try:
            rows = super().spool(finished, sign)
        except sqlite3.Error:
            self._card.refused_writes += 1
            raise
        for row in rows:
            ledger.learned.update(ledger.contents[row.payload])
        ledger.learned.update(json.loads(finished.residual))
        self._forget_other_bundle(finished, before)
        returned = self._connection.execute("SELECT digest FROM outbox WHERE returned")
        ledger.taken_back |= {name for (name,) in returned}
        return rows

    def _forget_other_bundle(self, finished: SpooledRound, before: "HeldByBundle") -> None:
        """What was kept for the bundle that the task had before can't be learned any more."""
        if before.bundles.get(finished.task, finished.bundle) == finished.bundle:
            return
        after = self.held()
        gone = set(before.kept) - set(after.kept) - {piece for each in after.waiting.values() for piece in each}
        self._card.ledger.learned -= gone
        self._card.forgotten += len(gone)

    def settle(self, row: OutboxRow, outcome: Outcome, reason: str, *, returned: bool = False) -> None:
        """See `DeviceDatabase`."""
        super().settle(row, outcome, reason, returned=returned)
        ledger = self._card.ledger
        (ledger.accepted if outcome is Outcome.ACCEPTED else ledger.taken_back).add(row.digest)

    def held(self) -> "HeldByBundle":
        """What it holds."""
        rows = self._connection.execute("SELECT digest, payload, returned FROM outbox").fetchall()
        tasks = self._connection.execute("SELECT task, bundle, residual FROM tasks").fetchall()
        waiting = {name: self._card.pieces_in(payload) for name, payload, returned in rows if not returned}
        kept = [piece for _, payload, returned in rows if returned for piece in self._card.pieces_in(payload)]
        kept += [piece for *_, residual in tasks for piece in json.loads(residual or b"[]")]
        return HeldByBundle(waiting, kept, {task: bundle for task, bundle, _ in tasks})


@dataclass(frozen=True, slots=True)
class HeldByBundle(Held):
    """`bundles` has the bundle of each task's last round."""

    bundles: dict[str, str]


class MonthStore(SampleStore):
    """`samples.db`."""

    def __init__(self, card: Card, *arguments, notes_arrivals: bool) -> None:
        draw = partial(random.getrandbits, TURN_BITS)
        super().__init__(*arguments, draw=draw, notes_arrivals=notes_arrivals)
        card.samples = self
        self.limit(full=card.full)

    def limit(self, *, full: bool) -> None:
        """See `limit_pages`."""
        limit_pages(self._connection, full=full)


class MonthCache(BlobCache):
    """The folder of blobs."""

    def __init__(self, card: Card, folder: Path) -> None:
        super().__init__(folder)
        self._card = card

    def write(self, blob: str, data: bytes) -> None:
        """See `BlobCache`."""
        if self._card.full:
            self._card.refused_writes += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(blob, data)
