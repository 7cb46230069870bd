"""The shipped `broker-coordinator` as a process of its own, which can be killed and started again."""

import json
import resource
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from broker_coordinator.cli import main
from broker_coordinator.storage.database import Database
from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.keys import SigningKey, VerifyKey, write_signing_key
from tests.support.broker import Address
from tests.support.fleet import FLEET, SHARD
from tests.support.in_process import program
from tests.support.process import RestartableProcess
from tests.support.waiting import until

LOG_ROOM_BYTES = 4096


class CoordinatorProcess(RestartableProcess):
    """A coordinator's folder (`coordinator.toml`, key, database) and the process in it, which runs `program`."""

    program = "broker_coordinator.cli"

    def __init__(
        self,
        folder: Path,
        broker: Address,
        bundle_folders: list[Path],
        *,
        enrolment: str = "open",
        protocol: str = "5",
        database: Database | None = None,
        shards: Sequence[str] = (),
        more: str = "",
    ) -> None:
        """`more` are tables to stand at the end of coordinator.toml. Of several `shards` each has a `ShardProcess`."""
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "coordinator.log")
        self.configuration, self.database = folder / "coordinator.toml", database or folder / "coordinator.db"
        self._said_before = 0
        key = SigningKey.generate()
        self.public_key: VerifyKey = key.verify_key
        (folder / "coordinator.key").touch(mode=0o600)
        (folder / "coordinator.key").write_text(write_signing_key(key))
        tasks = "".join(f'[[tasks]]\nbundle = "{bundle}"\n' for bundle in bundle_folders)
        self.configuration.write_text(
            f'fleet = "{FLEET}"\nshard = "{SHARD}"\nkey_file = "coordinator.key"\ndatabase = "{self.database}"\n'
            f"shards = {list(shards)}\n"
            f'enrolment = "{enrolment}"\n[broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
            f'protocol = "{protocol}"\n{tasks}{more}'
        )

    def start(self, *arguments: str) -> None:
        """Start it, with more `arguments` to `run`; it connects by itself."""
        self._skip_log()
        self._spawn([sys.executable, "-P", "-m", self.program, "run", "--config", str(self.configuration), *arguments])

    def is_serving(self) -> bool:
        """Whether the process that was started last has reached its broker."""
        return self.exit_status() is None and "broker_connected" in self.log()[self._said_before :]

    def start_serving(self) -> None:
        """Start it, and return when it has reached its broker: an agent that is there first asks again much later."""
        self.start()
        until(self.is_serving, "the coordinator has reached its broker")

    def _skip_log(self) -> None:
        """What it has said so far is another process's."""
        self._said_before = len(self.log()) if self.log_file.exists() else 0

    def fill_disk(self) -> None:
        """Let none of its files grow any more, but for some lines in its log, as on a full disk.

        The kernel refuses the writes themselves (EFBIG, part of the bytes written): that needs neither root nor a right
        to mount, and works in every container. SQLite's own max_page_count would refuse before it writes.
        """
        assert isinstance(self.database, Path)
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # space that it has already is no proof
        write_ahead_log = self.database.with_name(self.database.name + "-wal")
        size = max(write_ahead_log.stat().st_size, self.log_file.stat().st_size + LOG_ROOM_BYTES)
        self._limit_files(size)

    def free_disk(self) -> None:
        """Let its files grow again."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def journal(self) -> JournalReader:
        """Its database, read only."""
        return JournalReader.open(self.database)

    def devices(self, *arguments: str) -> Any:
        """`broker-coordinator devices ... --json`."""
        return self._ask("devices", *arguments)

    def helpers(self, *arguments: str) -> Any:
        """`broker-coordinator helpers ... --json`."""
        return self._ask("helpers", *arguments)

    def clusters(self, *arguments: str) -> Any:
        """`broker-coordinator clusters ... --json`."""
        return self._ask("clusters", *arguments)

    def analytics(self, *arguments: str) -> Any:
        """`broker-coordinator analytics ... --json`."""
        return self._ask("analytics", *arguments)

    def tasks(self, *arguments: str) -> Any:
        """`broker-coordinator tasks ... --json`."""
        return self._ask("tasks", *arguments)

    def _ask(self, noun: str, *arguments: str) -> Any:
        done = program(main, noun, "--config", str(self.configuration), *arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert "level=ERROR" not in done.stderr, done.stderr
        return json.loads(done.stdout)
