"""What the coordinator does with each kind of payload that devices send: one file each, in one table. Pure."""

from broker_coordinator.admission.consumer import (
    AnyJournalledConsumer,
    AnyVersionConsumer,
    Consumer,
    JournalledConsumer,
    VersionConsumer,
)
from broker_coordinator.consumers.activation_summary import ACTIVATION_SUMMARY_CONSUMER
from broker_coordinator.consumers.analytics_report import ANALYTICS_REPORT_CONSUMER
from broker_coordinator.consumers.enrolment import ENROLMENT_CONSUMER
from broker_coordinator.consumers.feature_statistics import FEATURE_STATISTICS_CONSUMER
from broker_coordinator.consumers.file_requests import BLOB_REQUEST_CONSUMER, WEIGHTS_REQUEST_CONSUMER
from broker_coordinator.consumers.mask_reply import MASK_REPLY_CONSUMER
from broker_coordinator.consumers.masked_update import MASKED_UPDATE_CONSUMER
from broker_coordinator.consumers.presence import PRESENCE_CONSUMER
from broker_coordinator.consumers.prompts import PROMPTS_CONSUMER
from broker_coordinator.consumers.statistics import STATISTICS_CONSUMER
from broker_coordinator.consumers.update import UPDATE_CONSUMER, UpdateFacts
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import KINDS, PayloadKind
from fleet_protocol.task_description import TaskDescription

CONSUMERS: dict[PayloadKind, Consumer] = {
    ENROLMENT_CONSUMER.kind: ENROLMENT_CONSUMER,
    PRESENCE_CONSUMER.kind: PRESENCE_CONSUMER,
    BLOB_REQUEST_CONSUMER.kind: BLOB_REQUEST_CONSUMER,
    WEIGHTS_REQUEST_CONSUMER.kind: WEIGHTS_REQUEST_CONSUMER,
    UPDATE_CONSUMER.kind: UPDATE_CONSUMER,
    STATISTICS_CONSUMER.kind: STATISTICS_CONSUMER,
    FEATURE_STATISTICS_CONSUMER.kind: FEATURE_STATISTICS_CONSUMER,
    ANALYTICS_REPORT_CONSUMER.kind: ANALYTICS_REPORT_CONSUMER,
    PROMPTS_CONSUMER.kind: PROMPTS_CONSUMER,
    ACTIVATION_SUMMARY_CONSUMER.kind: ACTIVATION_SUMMARY_CONSUMER,
    MASKED_UPDATE_CONSUMER.kind: MASKED_UPDATE_CONSUMER,
    MASK_REPLY_CONSUMER.kind: MASK_REPLY_CONSUMER,
}
"""An encrypted kind is consumed as the kind that is in its box."""


def register_consumer(consumer: Consumer) -> None:
    """Add the consumer of a kind that does not ship with edgeflock.

    Raises:
        ValueError: the kind has another, or is not registered.
    """
    if KINDS.get(consumer.kind.number) is not consumer.kind:
        raise ValueError(f"register the kind {consumer.kind.name} before its consumer")
    if CONSUMERS.setdefault(consumer.kind, consumer) is not consumer:
        raise ValueError(f"{consumer.kind.name} has a consumer already")


def journalled_consumer(number: int) -> AnyJournalledConsumer | None:
    """That of the journalled kind with this number; None where there is none."""
    kind = KINDS.get(number)
    found = CONSUMERS.get(kind) if kind else None
    return found if isinstance(found, JournalledConsumer) else None


def version_kinds() -> list[int]:
    """The numbers of all kinds that a task's versions can be made from."""
    return [consumer.kind.number for consumer in CONSUMERS.values() if isinstance(consumer, VersionConsumer)]


def version_consumer(task: TaskDescription) -> AnyVersionConsumer:
    """That of the kind which the task's versions are made from.

    Raises:
        ConfigurationError: there is none.
    """
    for consumer in CONSUMERS.values():
        if isinstance(consumer, VersionConsumer) and consumer.kind.name == task.versions_from:
            return consumer
    raise ConfigurationError(
        f"versions of task {task.task!r} are made from payloads of kind {task.versions_from!r}, of which nothing here"
        " makes versions; use the edgeflock that the bundle is for"
    )


__all__ = [
    "ANALYTICS_REPORT_CONSUMER",
    "CONSUMERS",
    "FEATURE_STATISTICS_CONSUMER",
    "MASKED_UPDATE_CONSUMER",
    "PROMPTS_CONSUMER",
    "STATISTICS_CONSUMER",
    "UPDATE_CONSUMER",
    "UpdateFacts",
    "journalled_consumer",
    "register_consumer",
    "version_consumer",
    "version_kinds",
]
