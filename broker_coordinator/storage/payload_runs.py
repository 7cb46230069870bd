"""Reads accepted payloads that follow one another in the journal: by the driver, as whoever leads reads all that other
shards take in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import pairwise

from sqlalchemy import Engine, bindparam, select

from broker_coordinator.storage.by_driver import rows
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.records import JournalledPayload
from broker_coordinator.storage.schema import FACTS, payloads

_BETWEEN = (
    select(*(FACTS if each.name == "facts" else payloads.c[each.name] for each in fields(JournalledPayload)))
    .where(payloads.c.position.between(bindparam("first"), bindparam("last")))
    .order_by(payloads.c.position)
)


def runs_of(positions: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of positions, which are in order, that follow one another without a gap."""
    firsts = [at for at in range(len(positions)) if not at or positions[at] != positions[at - 1] + 1]
    return [(positions[at], positions[end - 1]) for at, end in pairwise([*firsts, len(positions)])]


def read_runs(engine: Engine, runs: Iterable[tuple[int, int]]) -> list[JournalledPayload]:
    """Accepted payloads at positions from a first to a last one, of each of the runs.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        found = [rows(connection, _BETWEEN, first=first, last=last) for first, last in runs]
    return [JournalledPayload(*row) for of_run in found for row in of_run]
