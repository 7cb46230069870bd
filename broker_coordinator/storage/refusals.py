"""What was refused, for people: payloads one by one, the newest first, and all messages by reason."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Engine, func, select

from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import refused_payloads, rejections
from fleet_protocol.errors import Reason
from fleet_protocol.limits import MAX_SEQUENCE


@dataclass(frozen=True, slots=True)
class RefusedPayload:
    """One that an approved device had signed. `position` is its place in the journal."""

    position: int
    device: str
    sequence: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class RefusedCount:
    """How many messages were refused for a reason, and of how many devices; `unproven` of them prove no device."""

    reason: Reason
    messages: int
    devices: int
    unproven: int


def read_refused(
    engine: Engine, count: int, *, before: int = MAX_SEQUENCE, device: str = "", reason: Reason | None = None
) -> list[RefusedPayload]:
    """At most `count` refused payloads before a place in the journal, the newest first.

    Raises:
        JournalUnavailableError: the database failed.
    """
    wanted: list[ColumnElement[bool]] = [refused_payloads.c.position < before]
    wanted += [refused_payloads.c.device == device] if device else []
    wanted += [refused_payloads.c.reason == reason.value] if reason else []
    columns = refused_payloads.c
    query = select(columns.position, columns.device, columns.sequence, columns.reason, columns.detail).where(*wanted)
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(columns.position.desc()).limit(count))
        return [RefusedPayload(row[0], row[1], row[2], Reason(row[3]), row[4]) for row in rows]


def read_refused_by_reason(engine: Engine) -> Sequence[RefusedCount]:
    """All refused messages, the most frequent reason first.

    Raises:
        JournalUnavailableError: the database failed.
    """
    proven = rejections.c.device != ""
    columns = (
        rejections.c.reason,
        func.sum(rejections.c.count).label("messages"),
        func.count().filter(proven).label("devices"),
        func.coalesce(func.sum(rejections.c.count).filter(~proven), 0).label("unproven"),
    )
    query = select(*columns).group_by(rejections.c.reason).order_by(func.sum(rejections.c.count).desc())
    with reading(engine) as connection:
        return [RefusedCount(Reason(row[0]), int(row[1]), row[2], int(row[3])) for row in connection.execute(query)]
