"""Which copies devices have trained last, where they choose themselves."""

from contextlib import suppress

import msgspec
from sqlalchemy import Engine, func, or_, select

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import FACTS, departures, devices, payloads
from broker_coordinator.storage.task_conditions import trained_from_first, updates_of

_DECODER = msgspec.json.Decoder(UpdateFacts)


def chosen_clusters(engine: Engine, task: str) -> dict[str, int]:
    """By approved device, the copy that its newest update of the task's bundle has trained, however long ago that was;
    none of what was set aside, or sent before the device was revoked or forgotten.

    Raises:
        JournalUnavailableError: the database failed.
    """
    left = select(departures.c.device, func.max(departures.c.version).label("version"))
    left = left.where(departures.c.task == task).group_by(departures.c.device)
    gone = left.subquery()
    newest = select(func.max(payloads.c.position).label("position"))
    newest = newest.join(devices, devices.c.name == payloads.c.device).outerjoin(gone, gone.c.device == devices.c.name)
    counted = *updates_of(task), trained_from_first(task), payloads.c.set_aside.is_(None)
    still = or_(gone.c.version.is_(None), payloads.c.aggregate.is_(None), payloads.c.aggregate > gone.c.version)
    of_approved = devices.c.state == DeviceState.APPROVED.value
    last = newest.where(*counted, still, of_approved).group_by(payloads.c.device).subquery()
    query = select(payloads.c.device, FACTS).join(last, last.c.position == payloads.c.position)
    found: dict[str, int] = {}
    with reading(engine) as connection:
        for row in connection.execute(query.order_by(payloads.c.position)):
            with suppress(msgspec.MsgspecError):  # a damaged row: the others count
                found[row.device] = _DECODER.decode(row.facts).cluster
    return found
