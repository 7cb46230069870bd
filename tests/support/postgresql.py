"""A real PostgreSQL server from Debian's package, in a folder of its own, that a test may stop and start again."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError

from tests.support.broker import free_port
from tests.support.waiting import DEADLINE_SECONDS, until

UNPRIVILEGED = "nobody"
"""Whose the server is where the tests are root's: PostgreSQL refuses to be."""


class PostgresqlServer:
    """One server process with its folder. Every database that is asked for is made empty."""

    def __init__(self, *, durable: bool = False) -> None:
        """`durable`: what is committed survives the machine, which tests don't need: they kill processes."""
        self._durable = durable
        # Not pytest's folder: that one is closed to everybody but the user who runs the tests.
        self._folder = Path(tempfile.mkdtemp(prefix="edgeflock-postgresql-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._account = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        if self._account:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        self._run("initdb", "--username=edgeflock", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        """Start it unless it runs, and return when it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        with self.log_file.open("ab") as log:
            settings = [
                f"port={self._port}",
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "max_connections=30",
                *(["fsync=on"] if self._durable else ["fsync=off", "full_page_writes=off", "max_wal_size=8GB"]),
            ]
            command = [_program("postgres"), "-D", str(self._data)]
            command += [part for setting in settings for part in ("-c", setting)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._as_user())
        until(self._answers, "PostgreSQL answers")

    def stop(self) -> None:
        """Stop it at once; sessions end, what is committed stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=DEADLINE_SECONDS)

    def kill(self) -> None:
        """`kill -9` the server and every session: it recovers from its log at the next start."""
        if self._process is None or self._process.poll() is not None:
            return
        server = psutil.Process(self._process.pid)
        sessions = server.children(recursive=True)
        for each in (server, *sessions):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait(timeout=DEADLINE_SECONDS)
        psutil.wait_procs(sessions, timeout=DEADLINE_SECONDS)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.kill()  # a stop would write out what is deleted next
        shutil.rmtree(self._folder)

    def database(self, name: str) -> URL:
        """Make an empty database."""
        self.run_sql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def run_sql(self, statement: str) -> None:
        """What an operator does beside all databases."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self._folder / "log"

    @property
    def pid(self) -> int:
        """Of the server, whose sessions are its children."""
        assert self._process is not None
        return self._process.pid

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def url(self, name: str) -> URL:
        """Where a database is, made or not."""
        return URL.create("postgresql+psycopg", "edgeflock", host="127.0.0.1", port=self._port, database=name)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_file.read_text()
        engine = create_engine(self.url("postgres"))
        try:
            engine.connect().close()
        except DBAPIError:
            return False
        finally:
            engine.dispose()
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [_program(program), "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, **self._as_user())

    def _as_user(self) -> dict[str, object]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}


def _program(name: str) -> str:
    """Debian keeps the server's programs in a folder per version, where no PATH looks."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(versions[-1]) if versions else shutil.which(name)
    assert found, f"{name} is missing; run: sudo apt-get install postgresql"
    return found
