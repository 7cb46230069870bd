"""Reads out of the journal what helpers said last of each device's activations, and drops what is read no more."""

from collections.abc import Collection, Container, Mapping
from contextlib import suppress
from typing import Final

import msgspec
from sqlalchemy import Engine, select, update

from broker_coordinator.consumers.activation_summary import SummaryFacts
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.schema import FACTS, payloads
from broker_coordinator.storage.task_conditions import trained_from_first
from fleet_protocol.kinds import ACTIVATION_SUMMARY

MOST_READ = 8192
"""Summaries that are looked at, the newest of these helpers: one that says very much of a device hides silent ones."""

_ROOM: Final[Mapping[str, object]] = {"facts": {}, "envelope": None}
"""What a row becomes of which nothing is read any more: its device, number and digest stay."""

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


def drop_unread(engine: Engine, task: str) -> None:
    """Of each helper, keep the bytes of as many summaries of a task as may be read, whichever helpers are allowed.

    Raises:
        JournalUnavailableError: the database failed; nothing is dropped.
    """
    of_task = payloads.c.task == task, payloads.c.kind == ACTIVATION_SUMMARY.number
    with writing(engine) as connection:
        for helper in connection.scalars(select(payloads.c.device).where(*of_task).distinct()).all():
            its_own = *of_task, payloads.c.device == helper
            read = select(payloads.c.position).where(*its_own, payloads.c.set_aside.is_(None))
            last = connection.scalar(read.order_by(payloads.c.position.desc()).offset(MOST_READ - 1).limit(1))
            if last is not None:
                older = *its_own, payloads.c.position < last, payloads.c.envelope.is_not(None)
                connection.execute(update(payloads).where(*older).values(_ROOM))
