"""What the retention rule drops of masked updates beside the envelopes of those that count."""

from sqlalchemy import Connection, update

from broker_coordinator.storage.schema import cohorts, payloads
from fleet_protocol.kinds import MASKED_UPDATE


def forget_masks(connection: Connection, task: str, through: int) -> None:
    """Drop what nothing is added up from any more: sums of masks of versions up to `through`, and the envelopes of
    updates from these that count in no cohort. What became of each stays.
    """
    old = cohorts.c.task == task, cohorts.c.version <= through, cohorts.c.masks.is_not(None)
    connection.execute(update(cohorts).where(*old).values(masks=None))
    void = (
        payloads.c.task == task,
        payloads.c.kind == MASKED_UPDATE.number,
        payloads.c.aggregate.is_(None),
        payloads.c.set_aside.is_not(None),
        payloads.c.base_version <= through,
        payloads.c.envelope.is_not(None),
    )
    connection.execute(update(payloads).where(*void).values(envelope=None))
