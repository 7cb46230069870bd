"""Which schema a database has: it is made where there is none, brought up to date, or refused."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, insert, inspect, select, update
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from broker_coordinator.storage.schema import (
    SCHEMA,
    clusters,
    cohorts,
    departures,
    findings,
    held_payloads,
    helpers,
    invitations,
    metadata,
    payloads,
    pulls,
    pulls_read,
    queries,
    restores,
    rosters,
    schema_number,
    tasks,
    varieties,
    version_noise,
    versions,
)
from fleet_protocol.errors import ConfigurationError

_OF_ALL = ""
"""No device's name: whose direction that of a whole kind is, of which earlier releases had no other."""

MAX_SHOWN_TABLES = 5
"""Of another program's, in an error."""


def create_schema(connection: Connection) -> None:
    """Make the tables where there are none; bring those of an earlier release up to date.

    Raises:
        ConfigurationError: there are tables of another schema, or of another program.
    """
    if not inspect(connection).get_table_names():
        metadata.create_all(connection)
        connection.execute(insert(schema_number).values(number=SCHEMA))
        return
    number = _number_of(connection)
    while (upgrade := _UPGRADES.get(number)) is not None:
        upgrade(connection)
        number += 1
        connection.execute(update(schema_number).values(number=number))
    _require_own(number)


def check_schema(connection: Connection) -> None:
    """Raise `ConfigurationError` if another release or another program made the tables, or nobody did."""
    if not inspect(connection).get_table_names():
        raise ConfigurationError("it is empty; has the coordinator run with this configuration?")
    _require_own(_number_of(connection))


def _number_of(connection: Connection) -> int:
    names = inspect(connection).get_table_names()
    if schema_number.name not in names:
        raise ConfigurationError(
            f"it belongs to another program, whose tables are {', '.join(sorted(names)[:MAX_SHOWN_TABLES])}; name an"
            " empty database, or a file that does not exist"
        )
    return connection.scalar(select(schema_number.c.number)) or 0


def _require_own(number: int) -> None:
    if number in _UPGRADES:
        raise ConfigurationError(
            f"its tables are of schema {number}, this edgeflock's of {SCHEMA}; start this edgeflock's coordinator once,"
            " which brings them up to date"
        )
    if number > SCHEMA:
        raise ConfigurationError(
            f"its tables are of schema {number}, this edgeflock's of {SCHEMA}: a newer edgeflock has made them; update"
            " this one, or restore a backup from before that update"
        )
    if number < SCHEMA:
        raise ConfigurationError(
            f"its tables are of schema {number}, this edgeflock's of {SCHEMA}; use the edgeflock that made them, or"
            " give `database` a new name"
        )


def _from_9(connection: Connection) -> None:
    connection.execute(CreateTable(restores))
    _add_column(connection, invitations.c.coordinator_key)


def _from_10(connection: Connection) -> None:
    connection.execute(CreateTable(helpers))


def _from_11(connection: Connection) -> None:
    connection.execute(CreateTable(queries))
    for index in sorted(queries.indexes, key=lambda index: str(index.name)):
        connection.execute(CreateIndex(index))


def _from_12(connection: Connection) -> None:
    _add_column(connection, versions.c.given)


def _from_13(connection: Connection) -> None:
    for column in (tasks.c.wanted_version, tasks.c.solved_first, tasks.c.solved_last):
        _add_column(connection, column)


def _from_14(connection: Connection) -> None:
    connection.execute(CreateTable(clusters))


def _from_15(connection: Connection) -> None:
    connection.execute(CreateTable(findings))


def _from_16(connection: Connection) -> None:
    connection.execute(CreateTable(varieties))
    connection.execute(CreateTable(cohorts))
    for index in cohorts.indexes:
        connection.execute(CreateIndex(index))


def _from_17(connection: Connection) -> None:
    connection.execute(CreateTable(version_noise))
    if not any(column["name"] == "opened" for column in inspect(connection).get_columns(cohorts.name)):
        _add_column(connection, cohorts.c.opened)  # _from_16 makes the table as it is now


def _from_18(connection: Connection) -> None:
    _add_column(connection, versions.c.clip)


def _from_19(connection: Connection) -> None:
    _add_column(connection, departures.c.since)


def _from_20(connection: Connection) -> None:
    _add_column(connection, payloads.c.suspicion)
    connection.execute(CreateIndex(held_payloads))


def _from_21(connection: Connection) -> None:
    connection.execute(CreateTable(pulls))
    connection.execute(CreateTable(pulls_read))
    for task, document in connection.execute(select(findings.c.task, findings.c.document)).all():
        with suppress(msgspec.DecodeError, AttributeError):  # a damaged row: clusters are found anew
            found = msgspec.json.decode(document, type=dict[str, Any])
            found["kinds"] = {cluster: {_OF_ALL: kind} for cluster, kind in found.get("kinds", {}).items()}
            changed = msgspec.json.encode(found).decode()
            connection.execute(update(findings).where(findings.c.task == task).values(document=changed))


def _from_22(connection: Connection) -> None:
    connection.execute(CreateTable(rosters))


def _from_23(connection: Connection) -> None:
    for column in (versions.c.tempers_since, versions.c.tempers_until, versions.c.tempers_not_until):
        _add_column(connection, column)


def _add_column(connection: Connection, column: Column[Any]) -> None:
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")


_UPGRADES: Mapping[int, Callable[[Connection], None]] = {
    9: _from_9,
    10: _from_10,
    11: _from_11,
    12: _from_12,
    13: _from_13,
    14: _from_14,
    15: _from_15,
    16: _from_16,
    17: _from_17,
    18: _from_18,
    19: _from_19,
    20: _from_20,
    21: _from_21,
    22: _from_22,
    23: _from_23,
}
"""By the schema that is there, what makes it the next one."""
