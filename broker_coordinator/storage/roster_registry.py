"""The rosters of tasks that devices learn by gossip, as they were published last (docs/gossip.md)."""

from contextlib import suppress

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.distribution.places import places
from broker_coordinator.storage.change_counters import DEVICES, HELPERS, TASKS, change_counters_in, read_change_counters
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.helper_registry import allowed_helpers
from broker_coordinator.storage.schema import devices, rosters
from broker_coordinator.storage.stored_tasks import StoredTask
from fleet_protocol.errors import ProtocolError
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.kinds import Member, Roster, decode_payload, encode_payload

Mark = tuple[int, ...]
"""Changes whenever other devices may be approved, or helpers."""

_APPROVED = devices.c.state == DeviceState.APPROVED.value


class RosterRegistry:
    """Every method raises JournalUnavailableError where the database fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tasks_counter(self) -> int:
        """Changes whenever there may be another task, or another bundle of one."""
        return read_change_counters(self._engine).get(TASKS, 0)

    def mark(self) -> Mark:
        """What the devices stand at now."""
        seen = select(func.max(devices.c.changed), func.count()).where(_APPROVED)
        with reading(self._engine) as connection:
            counters = change_counters_in(connection)
            changed, count = connection.execute(seen).one()
        return (changed or 0, count, *(counters.get(subject, 0) for subject in (DEVICES, HELPERS)))

    def candidates(self) -> int:
        """How many devices a roster is of: those that are approved, and no helpers."""
        with reading(self._engine) as connection:
            return len(_approved(connection))

    def published(self, task: str) -> Roster | None:
        """The roster of a task; None before the first one."""
        with reading(self._engine) as connection:
            return _published(connection, task)

    def settle(self, task: StoredTask, plan: GossipPlan, heard: Roster | None = None) -> Roster:
        """The roster as it has to be now, stored. Where there is anything new in it, or devices that have `heard` that
        one would not follow it, its number is above both.
        """
        with reading(self._engine) as connection:
            found = _next(connection, task, plan, heard)
            if found == _published(connection, task.name):
                return found
        with writing(self._engine) as connection:
            found = _next(connection, task, plan, heard)
            connection.execute(delete(rosters).where(rosters.c.task == task.name))
            row = {"task": task.name, "number": found.number, "payload": encode_payload(found)}
            connection.execute(insert(rosters).values(row))
        return found


def _next(connection: Connection, task: StoredTask, plan: GossipPlan, heard: Roster | None) -> Roster:
    before = _published(connection, task.name)
    keys = _approved(connection)
    ordered = places([each.name for each in before.members] if before else [], list(keys))
    members = tuple(Member(name, keys[name]) for name in ordered)
    number = connection.scalar(select(rosters.c.number).where(rosters.c.task == task.name)) or 0
    found = Roster(task.generation, number, task.bundle, plan.topology, plan.rule, plan.seed, members)
    known = heard.number if heard is not None and heard.generation == task.generation and heard != found else -1
    if found == before and known < number:
        return found
    return msgspec.structs.replace(found, number=max(number, known) + 1)


def _published(connection: Connection, task: str) -> Roster | None:
    payload = connection.scalar(select(rosters.c.payload).where(rosters.c.task == task))
    with suppress(ProtocolError):  # a damaged row: everybody gets a place anew
        return decode_payload(payload, Roster) if payload else None
    return None


def _approved(connection: Connection) -> dict[str, bytes]:
    """The public key of each by its name, whoever was approved last at the end."""
    rows = select(devices.c.name, devices.c.public_key).where(_APPROVED).order_by(devices.c.changed, devices.c.name)
    helpers = allowed_helpers(connection)
    return {name: bytes(key) for name, key in connection.execute(rows) if name not in helpers}
