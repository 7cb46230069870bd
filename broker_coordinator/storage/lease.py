"""A lease: this process alone does some jobs on a database. It ends with the process, or where that hangs.

Two things make it. A lock that the kernel or the PostgreSQL server takes back when its holder dies keeps others
waiting: a file beside a SQLite database, a session's advisory lock in PostgreSQL. And a number in the table `leases`
counts up with each holder: every writing transaction of a holder compares it (a fencing token), so that one that has
lost its lock without noticing commits nothing after another has taken over.
"""

import os
import socket
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event, insert, select, update

from broker_coordinator.storage.database import JournalUnavailableError, reading, reads_only, translated, writing
from broker_coordinator.storage.schema import leases
from fleet_host.file_lock import FileLock

VERSIONS = "versions"
"""The job of making a database's versions; whoever does it is the only one that may be copied away from."""

CHECK_SECONDS = 5.0
"""How often a holder looks whether its lock is still there."""

LOCK_CLASS = 0x65_64_67_65
"""First key of the PostgreSQL advisory locks of leases; the second is the CRC-32 of the job's name."""

KEEPALIVE = ("tcp_keepalives_idle = 10", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")
"""Of the session that holds a lock: the server ends it 25 s after the holder's machine has gone."""


HANGING_SECONDS = 60.0
"""A holder that keeps its lease and has not looked at its lock for so long hangs: PostgreSQL ends its session, and
another one takes over. No step of a coordinator takes as long; where one does and nobody waits, it takes it again."""

FIRST_WITH_IDLE_TIMEOUT = 140_000
"""PostgreSQL 14: an older one knows no end of a session that asks nothing."""


def intake_of(shard: str) -> str:
    """The job of taking in what the devices of a shard send."""
    return f"intake-{shard}"


class LeaseLostError(JournalUnavailableError):
    """Another process has taken over: nothing of the transaction happened, and this process must stop."""


class _Lock(Protocol):
    def take(self) -> bool:
        """Take it, unless another has it."""
        ...

    def is_held(self) -> bool: ...

    def release(self) -> None: ...


class Lease:
    """The right to do all of `jobs` on the database of `engine`. A lock in PostgreSQL is lost `hanging_seconds` after
    the last `keep`, where they are given.
    """

    def __init__(self, engine: Engine, jobs: Sequence[str], hanging_seconds: float | None = None) -> None:
        self._engine = engine
        self._jobs = sorted(jobs)
        self._hanging_seconds = hanging_seconds
        self._locks = {job: _lock(engine, job, hanging_seconds) for job in self._jobs}
        self._numbers: dict[str, int] = {}
        self._checked_at = 0.0

    def take(self) -> str | None:
        """Take it. None where that has worked; else who has it, in words.

        Raises:
            JournalUnavailableError: the database failed.
            ConfigurationError: a lock file can't be written.
        """
        for job, lock in self._locks.items():
            if not lock.take():
                self._let_go()
                return f"{job}: {self._holder(job)}"
        with writing(self._engine) as connection:
            self._numbers = {job: _count_up(connection, job) for job in self._jobs}
        event.listen(self._engine, "begin", self._check)
        return None

    def take_also(self, job: str) -> str | None:
        """Take one more job; as `take`, and those that are held stay as they are.

        Raises:
            LeaseLostError: another process has one of those.
            JournalUnavailableError: the database failed.
            ConfigurationError: a lock file can't be written.
        """
        lock = _lock(self._engine, job, self._hanging_seconds)
        if not lock.take():
            return f"{job}: {self._holder(job)}"
        try:
            with writing(self._engine) as connection:
                number = _count_up(connection, job)
        except Exception:
            lock.release()
            raise
        self._locks[job] = lock
        self._numbers[job] = number
        return None

    def keep(self, now: float) -> None:
        """Take locks again that were lost with the connection, or with their file. `now` is in seconds on any clock.

        Raises:
            LeaseLostError: another process has one of them.
            JournalUnavailableError: the database failed; call again later.
        """
        if now < self._checked_at + CHECK_SECONDS:
            return
        self._checked_at = now
        for job, lock in self._locks.items():
            if not lock.is_held() and not lock.take():
                raise LeaseLostError(f"{job}: {self._holder(job)} has taken over")

    def confirm(self) -> None:
        """Compare as every writing transaction does, for what is said to others without writing.

        Raises:
            LeaseLostError: another process has taken over.
            JournalUnavailableError: the database failed; nobody knows.
        """
        with reading(self._engine) as connection:
            self._compare(connection)

    def release(self) -> None:
        """Give it up; transactions are not checked any more."""
        event.remove(self._engine, "begin", self._check)
        self._let_go()

    def _let_go(self) -> None:
        for lock in self._locks.values():
            lock.release()

    def _holder(self, job: str) -> str:
        with reading(self._engine) as connection:
            return connection.scalar(select(leases.c.holder).where(leases.c.job == job)) or "another process"

    def _check(self, connection: Connection) -> None:
        if not reads_only(connection):
            self._compare(connection)

    def _compare(self, connection: Connection) -> None:
        found = {row.job: row.number for row in connection.execute(_ALL)}
        for job, number in self._numbers.items():
            if found.get(job) != number:
                raise LeaseLostError(f"{job}: {self._holder(job)} has taken over")


_ALL = select(leases.c.job, leases.c.number)


def _count_up(connection: Connection, job: str) -> int:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    number = (connection.scalar(select(leases.c.number).where(leases.c.job == job)) or 0) + 1
    changed = connection.execute(update(leases).where(leases.c.job == job).values(number=number, holder=holder))
    if not changed.rowcount:
        connection.execute(insert(leases).values(job=job, number=number, holder=holder))
    return number


def _lock(engine: Engine, job: str, hanging_seconds: float | None) -> _Lock:
    if engine.dialect.name != "sqlite":
        return _SessionLock(engine, job, hanging_seconds)
    database = Path(engine.url.database or "").resolve()  # by whatever name a configuration has it
    return FileLock(database.with_name(f"{database.name}.{job}.lock"))


class _SessionLock:
    """An advisory lock of a PostgreSQL session that does nothing else."""

    def __init__(self, engine: Engine, job: str, hanging_seconds: float | None) -> None:
        self._engine = engine
        self._hanging_seconds = hanging_seconds
        key = zlib.crc32(job.encode())
        self._keys = (LOCK_CLASS, key - (1 << 32) if key >> 31 else key)
        self._session: Any = None

    def take(self) -> bool:
        self.release()
        with translated(self._engine):
            try:
                connection = self._engine.raw_connection()  # which lets the driver's own errors through
                connection.detach()
                self._session = connection.dbapi_connection
                self._session.autocommit = True
                for setting in (*KEEPALIVE, *self._end_of_silence()):
                    self._session.execute(f"SET {setting}")
                found = self._session.execute("SELECT pg_try_advisory_lock(%s, %s)", self._keys).fetchone()
            except self._engine.dialect.loaded_dbapi.Error as error:
                self.release()
                raise JournalUnavailableError(" ".join(str(error).split())) from error
        if not found[0]:
            self.release()
        return bool(found[0])

    def _end_of_silence(self) -> Sequence[str]:
        if self._hanging_seconds is None or self._session.info.server_version < FIRST_WITH_IDLE_TIMEOUT:
            return ()
        return (f"idle_session_timeout = {round(1000 * self._hanging_seconds)}",)

    def is_held(self) -> bool:
        if self._session is None:
            return False
        try:
            self._session.execute("SELECT 1")
        except self._engine.dialect.loaded_dbapi.Error:
            self.release()
            return False
        return True

    def release(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None
