"""What a finished round sends: a producer for each journalled kind of payload, one file each, in one table."""

from edge_agent.producers.producer import Producer
from edge_agent.producers.update import UPDATE_PRODUCER, packed_update
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.kinds import PayloadKind

PRODUCERS: dict[int, Producer] = {producer.kind.number: producer for producer in (UPDATE_PRODUCER,)}
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


def returns_to_residual(kind: PayloadKind) -> bool:
    """Whether the next round takes a rejected payload of this kind back into the error feedback. Nothing does where its
    producer is not installed any more.
    """
    producer = PRODUCERS.get(kind.number)
    return producer is not None and producer.returns_to_residual


__all__ = ["PRODUCERS", "Producer", "packed_update", "produce", "register", "returns_to_residual"]
