"""What every batch does, by the driver alone: SQLAlchemy would take longer over it than the database does."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError

Statement = Select[Any] | CompoundSelect[Any]


def execute(connection: Connection, statement: str, parameters: Any = ()) -> Any:
    """The driver's cursor after a statement; `parameters` are in the driver's own form.

    Raises:
        DBAPIError: as SQLAlchemy would.
    """
    cursor = connection.connection.cursor()
    error_base = connection.dialect.loaded_dbapi.Error
    try:
        cursor.execute(statement, parameters)
    except error_base as error:
        is_disconnect = connection.dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
        if is_disconnect:
            connection.invalidate(error)  # the server has ended the session meanwhile
        raise DBAPIError.instance(
            statement, parameters, error, error_base, connection_invalidated=is_disconnect, dialect=connection.dialect
        ) from error
    return cursor


def rows(connection: Connection, statement: Statement, **parameters: int) -> Sequence[tuple[Any, ...]]:
    """The rows of a statement that is built once, of columns that need no conversion: numbers, text, bytes."""
    sql, names, values = _compiled(statement, connection.dialect)
    given = values | parameters
    found: Sequence[tuple[Any, ...]] = execute(
        connection, sql, given if names is None else [given[name] for name in names]
    ).fetchall()
    return found


@cache
def _compiled(statement: Statement, dialect: Dialect) -> tuple[str, Sequence[str] | None, dict[str, Any]]:
    """The SQL, the names of its parameters where they go by position, and the values that stand in it."""
    compiled = statement.compile(dialect=dialect)
    values = {name: bound.value for name, bound in compiled.binds.items()}
    return str(compiled), compiled.positiontup, values
