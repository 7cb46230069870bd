"""The shipped `broker-coordinator` as a process of its own, which can be killed and started again."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from broker_coordinator.database import Database
from broker_coordinator.journal_reader import JournalReader
from fleet_protocol.keys import SigningKey, VerifyKey, write_signing_key
from tests.support.broker import Broker

FLEET, SHARD = "testfleet", "0"


class CoordinatorProcess:
    """A coordinator's folder (`coordinator.toml`, key, database) and the process that runs in it."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        bundle_folders: list[Path],
        *,
        enrolment: str = "open",
        protocol: str = "5",
        database: Database | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.configuration, self.database = folder / "coordinator.toml", database or folder / "coordinator.db"
        self._log, self._process = folder / "coordinator.log", None
        key = SigningKey.generate()
        self.public_key: VerifyKey = key.verify_key
        (folder / "coordinator.key").touch(mode=0o600)
        (folder / "coordinator.key").write_text(write_signing_key(key))
        tasks = "".join(f'[[tasks]]\nbundle = "{bundle}"\n' for bundle in bundle_folders)
        self.configuration.write_text(
            f'fleet = "{FLEET}"\nshard = "{SHARD}"\nkey_file = "coordinator.key"\ndatabase = "{self.database}"\n'
            f'enrolment = "{enrolment}"\n[broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
            f'protocol = "{protocol}"\n{tasks}'
        )

    def start(self) -> None:
        """Start it; it connects by itself."""
        with self._log.open("ab") as log:
            command = [*_PROGRAM, "run", "--config", str(self.configuration)]
            self._process = subprocess.Popen(command, stderr=log, env=_environment())

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM)

    def fill_disk(self) -> None:
        """Let none of its files grow beyond the size that the database's write-ahead log has now."""
        assert self._process is not None
        assert isinstance(self.database, Path)
        size = self.database.with_name(self.database.name + "-wal").stat().st_size
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        """Let its files grow again."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def log(self) -> str:
        """Everything it has logged."""
        return self._log.read_text()

    def journal(self) -> JournalReader:
        """Its database, read only."""
        return JournalReader.open(self.database)

    def devices(self, *arguments: str) -> Any:
        """`broker-coordinator devices ... --json`."""
        return self._ask("devices", *arguments)

    def tasks(self, *arguments: str) -> Any:
        """`broker-coordinator tasks ... --json`."""
        return self._ask("tasks", *arguments)

    def _ask(self, noun: str, *arguments: str) -> Any:
        command = [*_PROGRAM, noun, "--config", str(self.configuration), *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, check=True, env=_environment())
        return json.loads(done.stdout)

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        return int(self._process.wait(timeout=10))


_PROGRAM = [sys.executable, "-m", "broker_coordinator.cli"]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
