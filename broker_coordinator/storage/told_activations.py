"""Reads out of the journal what helpers said last of each device's activations."""

from collections.abc import Collection, Container
from contextlib import suppress

import msgspec
from sqlalchemy import select

from broker_coordinator.consumers.activation_summary import SummaryFacts
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.schema import FACTS, payloads
from broker_coordinator.storage.task_conditions import trained_from_first
from fleet_protocol.kinds import ACTIVATION_SUMMARY

MOST_READ = 8192
"""Summaries that are looked at, the newest of these helpers: one that says very much of a device hides silent ones."""

_DECODER = msgspec.json.Decoder(SummaryFacts)


def told_activations(
    journal: JournalReader, task: str, *, helpers: Collection[str], devices: Container[str], most: int
) -> dict[str, SummaryFacts]:
    """By device, the newest that one of these `helpers` said for the task's bundle: of those of `devices` of which
    something was said last, at most so many.

    Raises:
        JournalUnavailableError: the database failed.
    """
    of_kind = (
        payloads.c.task == task,
        payloads.c.kind == ACTIVATION_SUMMARY.number,
        payloads.c.device.in_(helpers),
        payloads.c.set_aside.is_(None),
        trained_from_first(task),
    )
    newest = select(FACTS).where(*of_kind).order_by(payloads.c.position.desc()).limit(MOST_READ)
    found: dict[str, SummaryFacts] = {}
    with reading(journal.engine) as connection:
        for row in connection.execution_options(yield_per=100).execute(newest):
            with suppress(msgspec.MsgspecError):  # a damaged row: what was said before counts
                facts = _DECODER.decode(row.facts)
                if facts.device in devices:
                    found.setdefault(facts.device, facts)
            if len(found) == most:
                break
    return found
