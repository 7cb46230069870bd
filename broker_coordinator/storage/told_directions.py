"""Reads out of the journal where devices' updates point, and which copies they have trained."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec
from sqlalchemy import select

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.aggregation.clusters import NO_PULL, Pull
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.schema import FACTS, payloads
from broker_coordinator.storage.task_conditions import trained_from_first, updates_of

MOST_READ = 8192
"""Updates that are looked at, the newest of the task's bundle."""

_DECODER = msgspec.json.Decoder(UpdateFacts)


def told_directions(journal: JournalReader, task: str) -> dict[str, Pull]:
    """By approved device, where its updates pull; who sent last is last.

    Raises:
        JournalUnavailableError: the database failed.
    """
    found: dict[str, Pull] = {}
    for device, facts in _counted(journal, task):
        if facts.direction:
            before = found.pop(device, NO_PULL)
            found[device] = before.after(facts.cluster, facts.direction, facts.norm * facts.scale)
    return found


def chosen_clusters(journal: JournalReader, task: str) -> dict[str, int]:
    """By approved device, the copy that its newest update has trained.

    Raises:
        JournalUnavailableError: the database failed.
    """
    return {device: facts.cluster for device, facts in _counted(journal, task)}


def _counted(journal: JournalReader, task: str) -> Iterator[tuple[str, UpdateFacts]]:
    """Of approved devices, the facts of updates of the bundle that count, oldest first: none that was set aside, or
    sent before its device was revoked or forgotten.
    """
    approved = {each.name for each in DeviceRegistry(journal.engine).devices() if each.state is DeviceState.APPROVED}
    left: dict[str, int] = {}
    for departure in journal.history(task).departures:
        left[departure.device] = max(left.get(departure.device, 0), departure.version)
    of_bundle = *updates_of(task), trained_from_first(task), payloads.c.set_aside.is_(None)
    query = select(payloads.c.device, payloads.c.aggregate, FACTS).where(*of_bundle)
    with reading(journal.engine) as connection:
        rows = connection.execute(query.order_by(payloads.c.position.desc()).limit(MOST_READ)).all()
    for row in reversed(rows):
        is_gone = row.device in left and row.aggregate is not None and row.aggregate <= left[row.device]
        if row.device in approved and not is_gone:
            with suppress(msgspec.MsgspecError):  # a damaged row: the others count
                yield row.device, _DECODER.decode(row.facts)
