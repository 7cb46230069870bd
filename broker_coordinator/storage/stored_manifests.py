"""How each task is by the database: whoever takes in may not be the one that makes versions."""

from sqlalchemy import Engine, func, select

from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import tasks, versions
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.kinds import Manifest

_NEWEST = select(versions.c.task, func.max(versions.c.number).label("number")).group_by(versions.c.task).subquery()
_STORED = (
    select(
        tasks.c.name,
        tasks.c.bundle,
        tasks.c.generation,
        tasks.c.removed,
        tasks.c.first_version,
        versions.c.number,
        versions.c.weights_hash,
    )
    .outerjoin(_NEWEST, _NEWEST.c.task == tasks.c.name)
    .outerjoin(versions, (versions.c.task == _NEWEST.c.task) & (versions.c.number == _NEWEST.c.number))
)


def stored_manifests(engine: Engine) -> dict[str, Manifest]:
    """By name what devices are told of each task, the removed ones too; nothing of whom it asks.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        rows = connection.execute(_STORED).all()
    found = {}
    for row in rows:
        if row.removed:
            found[row.name] = farewell(row.first_version, row.bundle, row.generation)
        else:
            found[row.name] = Manifest(row.number or 0, row.bundle, row.weights_hash or "", EVERYONE, row.generation)
    return found


def farewell(first_version: int, bundle: str, generation: int) -> Manifest:
    """What devices are told of a removed task. There are no weights to name."""
    return Manifest(first_version, bundle, bundle, EVERYONE, generation, removed=True)
