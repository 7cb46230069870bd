"""Whether any update was lost or counted twice, by comparing the devices' databases with the journal."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker_coordinator.storage.records import JournalledPayload


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """A device's own record of its updates: number to digest, by outcome."""

    updates_made: int
    accepted: Mapping[int, bytes]
    rejected: Mapping[int, bytes]
    waiting: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Audit:
    """Updates of a whole fleet. `lost`: not in the journal, although the device counts it as accepted, or has no record
    of it. `duplicated`: in the journal more than once, or although the device took it back or sent it under another
    number. `waiting`: in an outbox, of which `pending` are not in the journal."""

    lost: int
    duplicated: int
    waiting: int
    rejected: int
    pending: int


def read_ledger(database: Path) -> DeviceLedger:
    """Read an agent's database; the agent must have ended.

    Raises:
        sqlite3.Error: it is no agent's database.
    """
    connection = sqlite3.connect(database)
    try:
        settled = connection.execute("SELECT sequence, digest, outcome FROM settled").fetchall()
        outcome = {
            wanted: {sequence: digest for sequence, digest, found in settled if found == wanted}
            for wanted in ("accepted", "rejected")
        }
        waiting = dict(connection.execute("SELECT sequence, digest FROM outbox WHERE NOT returned").fetchall())
        made = connection.execute("SELECT value FROM counters WHERE name = 'updates_made'").fetchone()
    finally:
        connection.close()
    return DeviceLedger(made[0] if made else 0, outcome["accepted"], outcome["rejected"], waiting)


def audit(ledgers: Mapping[str, DeviceLedger], journal: Sequence[JournalledPayload]) -> Audit:
    """Compare each device's record with the journal."""
    held = Counter((row.device, row.digest) for row in journal)
    lost = duplicated = pending = 0
    for device, ledger in ledgers.items():
        lost += ledger.updates_made - len(ledger.accepted) - len(ledger.rejected) - len(ledger.waiting)
        lost += sum(not held[device, digest] for digest in ledger.accepted.values())
        pending += sum(not held[device, digest] for digest in ledger.waiting.values())
        duplicated += sum(held[device, digest] > 0 for digest in ledger.rejected.values())
        known = {*ledger.accepted.values(), *ledger.rejected.values(), *ledger.waiting.values()}
        duplicated += sum(owner == device and digest not in known for owner, digest in held)
    duplicated += sum(count - 1 for count in held.values())
    return Audit(
        lost,
        duplicated,
        waiting=sum(len(ledger.waiting) for ledger in ledgers.values()),
        rejected=sum(len(ledger.rejected) for ledger in ledgers.values()),
        pending=pending,
    )
