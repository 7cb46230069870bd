"""Conditions on a task's rows.

A task may have had another bundle before: those rows stay, and nothing is computed of them.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, Text, cast, false, func, or_, select

from broker_coordinator.aggregation.lineage import Lineage
from broker_coordinator.storage.schema import payloads, tasks, versions


def version_kind(task: str) -> ScalarSelect[int]:
    """The number of the kind of payload that the versions of `task` are made from."""
    return select(tasks.c.version_kind).where(tasks.c.name == task).scalar_subquery()


def newest_positions(task: str, lineage: Lineage) -> Select[Any]:
    """Those of the newest update per device in a lineage."""
    held = or_(false(), *(payloads.c.aggregate.between(first, last) for first, last in lineage.spans))
    query = select(func.max(payloads.c.position)).where(*updates_of(task), held, *still_there(lineage.left))
    return query.group_by(payloads.c.device)


def last_senders(task: str, lineage: Lineage, count: int) -> Select[Any]:
    """Of the last `count` devices whose updates a lineage holds and others are compared with (`Quarantine.note`), the
    position of the last such update of each. Facts are looked at as text: what is damaged keeps nobody from reading.
    """
    facts = cast(payloads.c.facts, Text)
    compared = (facts.not_like(f"%{words}%") for words in ('"tempered": ', '"norm": 0.0,', '"norm": 0.0}'))
    positions = newest_positions(task, lineage).where(*compared)
    return positions.order_by(func.max(payloads.c.position).desc()).limit(count)


def still_there(left: Mapping[str, int]) -> list[ColumnElement[bool]]:
    return [
        or_(payloads.c.device != device, payloads.c.aggregate > version) for device, version in sorted(left.items())
    ]


def first_version(task: str) -> ScalarSelect[int]:
    """The number of the version that is the own one of the bundle of `task`."""
    return select(tasks.c.first_version).where(tasks.c.name == task).scalar_subquery()


def newest_number_in(connection: Connection, task: str) -> int:
    """The number of a task's newest version, as a transaction sees it; 0 where there is none."""
    return connection.scalar(select(func.max(versions.c.number)).where(versions.c.task == task)) or 0


def of_bundle(task: str) -> tuple[ColumnElement[bool], ...]:
    """Of a version: it is one of the task's bundle."""
    return versions.c.task == task, versions.c.number >= first_version(task)


def kept(task: str) -> Select[Any]:
    """The versions of the task's bundle whose weights are kept."""
    return select(versions).where(*of_bundle(task), versions.c.weights.is_not(None))


def held_from_first(task: str) -> ColumnElement[bool]:
    """Of a payload that a version holds: it is one of the task's bundle."""
    return payloads.c.aggregate >= first_version(task)


def trained_from_first(task: str) -> ColumnElement[bool]:
    """Of any payload, the same."""
    return payloads.c.base_version >= first_version(task)


def updates_of(task: str) -> tuple[ColumnElement[bool], ...]:
    """Of a payload: it is one that versions of the task are made from."""
    return payloads.c.task == task, payloads.c.kind == version_kind(task)


def set_aside_of(task: str) -> tuple[ColumnElement[bool], ...]:
    """Of a payload: it is one of the task that is set aside."""
    return payloads.c.task == task, payloads.c.set_aside.is_not(None)
