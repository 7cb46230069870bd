"""Queries about devices' samples, and the reports that the journal has for them (docs/analytics.md)."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, func, insert, select, update

from broker_coordinator.aggregation.analytics.reports import ReportFacts, RoundAnswers, answers_of
from broker_coordinator.aggregation.analytics.stored_query import QueryState, StoredQuery
from broker_coordinator.storage.change_counters import QUERIES, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import FACTS, payloads, queries
from broker_coordinator.storage.standing import last_position_in
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import ANALYTICS_REPORT, Query
from fleet_protocol.limits import MAX_OPEN_QUERIES

_OPEN = queries.c.state == QueryState.OPEN.value


@dataclass(frozen=True, slots=True)
class RegisteredQuery:
    """One query of a task. `published` and `round_begun` are in seconds since 1970; the reports of its round are behind
    `after_position` in the journal.
    """

    task: str
    state: QueryState
    published: int
    round_begun: int
    after_position: int
    stored: StoredQuery

    @property
    def query(self) -> Query:
        """As devices are asked now, or were last."""
        return self.stored.query


class QueryRegistry:
    """Publishes, lists and stops them. A running coordinator notices (`change_counters`).

    Every method raises JournalUnavailableError where the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[RegisteredQuery]:
        """Every query, the oldest first."""
        with reading(self._engine) as connection:
            found = connection.execute(select(queries).order_by(queries.c.published, queries.c.number))
            return [_registered(row) for row in found]

    def asked(self) -> dict[str, dict[int, Query]]:
        """The queries that are open, by task and number; a task whose queries are all closed has none."""
        found: dict[str, dict[int, Query]] = {}
        for each in self.all():
            open_ones = found.setdefault(each.task, {})
            if each.state is QueryState.OPEN:
                open_ones[each.query.number] = each.query
        return found

    def named(self, name: str) -> RegisteredQuery:
        """The query of this name that is open, of which there is one at most; else the newest.

        Raises:
            ConfigurationError: there is none.
        """
        found = [each for each in self.all() if each.query.name == name]
        if not found:
            raise ConfigurationError(f"there is no query {name!r}; see: broker-coordinator analytics list")
        return next((each for each in found if each.state is QueryState.OPEN), found[-1])

    def publish(self, task: str, stored: StoredQuery, now: int) -> None:
        """Ask the task's devices from now on.

        Raises:
            ConfigurationError: a query of this name is open, or as many as there may be.
        """
        with writing(self._engine) as connection:
            opened = connection.execute(select(queries.c.task, queries.c.name).where(_OPEN)).all()
            if namesakes := [each.task for each in opened if each.name == stored.query.name]:
                raise ConfigurationError(
                    f"a query {stored.query.name!r} of {namesakes[0]} is open; stop it, or give this one another name"
                )
            names = [each.name for each in opened if each.task == task]
            if len(names) >= MAX_OPEN_QUERIES:
                raise ConfigurationError(
                    f"{len(names)} queries of {task} are open, the limit is {MAX_OPEN_QUERIES}; stop one: {names[0]}"
                )
            connection.execute(
                insert(queries).values(
                    number=stored.query.number,
                    name=stored.query.name,
                    task=task,
                    state=QueryState.OPEN.value,
                    published=now,
                    round_begun=now,
                    after_position=last_position_in(connection),
                    document=_written(stored),
                )
            )
            count_up(connection, QUERIES)

    def stop(self, name: str) -> RegisteredQuery:
        """Ask nobody any more; what was answered stays.

        Raises:
            ConfigurationError: there is no such query.
        """
        self.close(self.named(name))
        return self.named(name)

    def close(self, registered: RegisteredQuery) -> None:
        """Stop this one, in whichever round it is by now; nothing where it is closed."""
        with writing(self._engine) as connection:
            _set(connection, registered, state=QueryState.STOPPED.value)

    def go_on(self, before: RegisteredQuery, after: StoredQuery, *, follows: bool, now: int) -> None:
        """Begin the next round of a query, or end it where none `follows`; nothing where it was changed meanwhile."""
        same_round = (queries.c.round_begun == before.round_begun, queries.c.after_position == before.after_position)
        with writing(self._engine) as connection:
            if not follows:
                _set(connection, before, *same_round, state=QueryState.DONE.value, document=_written(after))
                return
            position = last_position_in(connection)
            begun = {"round_begun": now, "after_position": position, "document": _written(after)}
            _set(connection, before, *same_round, **begun)

    def reported(self, registered: RegisteredQuery) -> int:
        """How many devices have reported in this round."""
        held = (*_held_by(registered), payloads.c.position > registered.after_position)
        with reading(self._engine) as connection:
            return connection.scalar(select(func.count(func.distinct(payloads.c.device))).where(*held)) or 0

    def answers(self, registered: RegisteredQuery) -> RoundAnswers:
        """What devices have said in this round, or in its last one; without a report whose row is damaged."""
        held = select(payloads.c.device, FACTS).where(*_held_by(registered)).order_by(payloads.c.position)
        with reading(self._engine) as connection:
            reports = [each for row in connection.execute(held) for each in _read(row)]
        return answers_of(reports, registered.query.round)


_FACTS = msgspec.json.Decoder(ReportFacts)
_DOCUMENT = msgspec.json.Decoder(StoredQuery)


def _read(row: Row[Any]) -> Iterator[tuple[str, ReportFacts]]:
    with suppress(msgspec.MsgspecError):
        yield row.device, _FACTS.decode(row.facts)


def _held_by(registered: RegisteredQuery) -> tuple[Any, ...]:
    return (
        payloads.c.task == registered.task,
        payloads.c.kind == ANALYTICS_REPORT.number,
        payloads.c.aggregate == registered.query.number,
    )


def _set(
    connection: Connection, registered: RegisteredQuery, *conditions: ColumnElement[bool], **values: object
) -> None:
    """Change a query that is open, and of which these conditions hold."""
    same = (queries.c.number == registered.query.number, _OPEN, *conditions)
    if connection.execute(update(queries).where(*same).values(values)).rowcount:
        count_up(connection, QUERIES)


def _registered(row: Row[Any]) -> RegisteredQuery:
    return RegisteredQuery(
        row.task,
        QueryState(row.state),
        row.published,
        row.round_begun,
        row.after_position,
        _DOCUMENT.decode(row.document),
    )


def _written(stored: StoredQuery) -> str:
    return msgspec.json.encode(stored).decode()
