"""What the coordinator does with each kind of payload that devices send: one file each, in one table. Pure."""

from typing import Any

from broker_coordinator.admission.consumer import Consumer, JournalledConsumer
from broker_coordinator.consumers.enrolment import ENROLMENT_CONSUMER
from broker_coordinator.consumers.file_requests import BLOB_REQUEST_CONSUMER, WEIGHTS_REQUEST_CONSUMER
from broker_coordinator.consumers.presence import PRESENCE_CONSUMER
from broker_coordinator.consumers.update import UPDATE_CONSUMER, UpdateFacts
from fleet_protocol.kinds import KINDS, PayloadKind

CONSUMERS: dict[PayloadKind, Consumer] = {
    ENROLMENT_CONSUMER.kind: ENROLMENT_CONSUMER,
    PRESENCE_CONSUMER.kind: PRESENCE_CONSUMER,
    BLOB_REQUEST_CONSUMER.kind: BLOB_REQUEST_CONSUMER,
    WEIGHTS_REQUEST_CONSUMER.kind: WEIGHTS_REQUEST_CONSUMER,
    UPDATE_CONSUMER.kind: UPDATE_CONSUMER,
}
"""An encrypted kind is consumed as the kind that is in its box."""


def register_consumer(consumer: Consumer) -> None:
    """Add the consumer of a kind that does not ship with edgeflock.

    Raises:
        ValueError: the kind has another.
    """
    if CONSUMERS.setdefault(consumer.kind, consumer) is not consumer:
        raise ValueError(f"{consumer.kind.name} has a consumer already")


def journalled_consumer(number: int) -> JournalledConsumer[Any, Any, Any, Any, Any] | None:
    """That of the journalled kind with this number; None where there is none."""
    kind = KINDS.get(number)
    found = CONSUMERS.get(kind) if kind else None
    return found if isinstance(found, JournalledConsumer) else None


__all__ = ["CONSUMERS", "UPDATE_CONSUMER", "UpdateFacts", "journalled_consumer", "register_consumer"]
