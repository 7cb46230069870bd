"""Statements compiled once for all databases of a test process, as a coordinator compiles them once for its one.

SQLAlchemy keeps what it has compiled with each engine. A test that starts a coordinator twenty times makes twenty
engines, and compiling took them a third of their time.
"""

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.event import listen
from sqlalchemy.util import LRUCache

KINDS: tuple[type[Dialect], ...] = (SQLiteDialect_pysqlite, PGDialect_psycopg)
"""Every engine is one of these with the same options, of the same library or of the same server's release."""

STATEMENTS = 2000


def share_statements() -> None:
    """Let every engine that connects from now on know what the others have compiled."""
    compiled: LRUCache[object, object] = LRUCache(STATEMENTS)

    def share(connection: Connection) -> None:
        if "compiled_cache" not in connection.get_execution_options():
            connection.engine.update_execution_options(compiled_cache=compiled)
            connection.execution_options(compiled_cache=compiled)

    for kind in KINDS:
        kind.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
        kind.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]
    listen(Engine, "engine_connect", share)
