"""What a finished round sends: a producer for each journalled kind of payload, one file each, in one table."""

import contextlib
from collections.abc import Iterable

import msgspec

from edge_agent.core.delivery import TOO_LARGE
from edge_agent.core.outbox import OutboxRow
from edge_agent.producers.feature_statistics import FEATURE_STATISTICS_PRODUCER
from edge_agent.producers.masked_update import MASKED_UPDATE_PRODUCER
from edge_agent.producers.producer import Producer
from edge_agent.producers.prompts import PROMPTS_PRODUCER
from edge_agent.producers.statistics import STATISTICS_PRODUCER
from edge_agent.producers.update import UPDATE_PRODUCER
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import KINDS, PayloadKind
from fleet_protocol.task_description import TaskDescription

PRODUCERS: dict[int, Producer] = {
    producer.kind.number: producer
    for producer in (
        UPDATE_PRODUCER,
        STATISTICS_PRODUCER,
        FEATURE_STATISTICS_PRODUCER,
        PROMPTS_PRODUCER,
        MASKED_UPDATE_PRODUCER,
    )
}
"""By the number of the kind, in the order in which their payloads are numbered."""


def register(producer: Producer) -> Producer:
    """Add a producer that does not ship with edgeflock; returns it.

    Raises:
        ValueError: its kind has a producer already, or is not journalled.
    """
    if not producer.kind.journalled:
        raise ValueError(f"kind {producer.kind.name} is not journalled: nothing of it waits in an outbox")
    if PRODUCERS.setdefault(producer.kind.number, producer) is not producer:
        raise ValueError(f"kind {producer.kind.name} has a producer already")
    return producer


def produce(description: TaskDescription, result: TrainingResult) -> list[tuple[PayloadKind, bytes]]:
    """All payloads of a finished round, one of a kind at most."""
    made = ((producer.kind, producer.produce(description, result)) for producer in PRODUCERS.values())
    return [(kind, payload) for kind, payload in made if payload is not None]


def kept_of(kind: PayloadKind, result: TrainingResult) -> bytes:
    """What the device keeps for itself of a round's payload of this kind."""
    producer = PRODUCERS.get(kind.number)
    return b"" if producer is None or producer.keep is None else producer.keep(result)


def makes_versions_of(description: TaskDescription) -> bool:
    """Whether something here produces the kind that the task's versions are made from."""
    return any(producer.kind.name == description.versions_from for producer in PRODUCERS.values())


def goes_back(kind: PayloadKind) -> bool:
    """Whether a rejected payload of this kind waits for the next round, which takes it back. None does where its
    producer is not installed any more.
    """
    producer = PRODUCERS.get(kind.number)
    return producer is not None and producer.give_back is not None


def given_back(rejected: Iterable[OutboxRow]) -> dict[int, Returned]:
    """By its number, the update in each rejected payload that the next round takes back.

    One that is damaged, or whose producer is not installed now, is not among them, and waits on.
    """
    returned: dict[int, Returned] = {}
    for row in rejected:
        kind = KINDS.get(row.kind)
        producer = PRODUCERS.get(kind.decrypted.number) if kind else None
        if producer is not None and producer.give_back is not None:
            with contextlib.suppress(ProtocolError):  # damaged on the disk: it must not hold up the rounds
                update = producer.give_back(row.payload if producer.keep is None else row.kept)
                returned[row.sequence] = msgspec.structs.replace(update, too_large=row.reason in TOO_LARGE)
    return returned


__all__ = ["PRODUCERS", "Producer", "given_back", "goes_back", "kept_of", "makes_versions_of", "produce", "register"]
