"""The shipped coordinators of a fleet with several shards, a process for each, with one configuration and database."""

import sys
from pathlib import Path

from sqlalchemy import URL

from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.shards import shard_of
from tests.support.broker import Address
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import RestartableProcess
from tests.support.waiting import until

SHARDS = ("0", "1")


def names_in(shard: str, count: int, shards: tuple[str, ...] = SHARDS) -> list[str]:
    """Names of devices that belong to a shard."""
    names = (f"pi-{number}" for number in range(1000))
    own = [name for name in names if shard_of(name, shards) == shard]
    return own[:count]


class ShardProcess(RestartableProcess):
    """`broker-coordinator run --shard NAME`."""

    def __init__(self, configuration: Path, shard: str) -> None:
        super().__init__(configuration.parent / f"shard-{shard}.log")
        self.shard = shard
        self._configuration = configuration
        self._said_before = 0

    def start(self) -> None:
        """Start it; it connects by itself."""
        self._said_before = len(self.log()) if self.log_file.exists() else 0
        command = ["broker_coordinator.cli", "run", "--config", str(self._configuration), "--shard", self.shard]
        self._spawn([sys.executable, "-P", "-m", *command])

    def says(self, words: str) -> bool:
        """Whether the process that was started last has said so."""
        return words in self.log()[self._said_before :]

    def is_serving(self) -> bool:
        """Whether it has reached its broker."""
        return self.exit_status() is None and self.says("broker_connected")

    def leads(self) -> bool:
        """Whether it makes the versions."""
        return self.exit_status() is None and self.says("event=leads")


class ShardedCoordinator(CoordinatorProcess):
    """One folder and database, and a process for each shard; itself it is for commands, and for `run --shards`."""

    def __init__(
        self, folder: Path, broker: Address, bundle: Path, database: URL, more: str = "", *, protocol: str = "5"
    ) -> None:
        super().__init__(folder, broker, [bundle], protocol=protocol, database=database, shards=SHARDS, more=more)
        self.processes = {shard: ShardProcess(self.configuration, shard) for shard in SHARDS}

    def start_all(self) -> None:
        """Start them, and return when one leads and all have reached their broker."""
        for process in self.processes.values():
            process.start()
        until(lambda: all(each.is_serving() for each in self.processes.values()), "all shards serve")
        until(lambda: any(each.leads() for each in self.processes.values()), "one of them leads")

    def leader(self) -> ShardProcess | None:
        """The process that leads."""
        return next((each for each in self.processes.values() if each.leads()), None)

    def followers(self) -> list[ShardProcess]:
        """The processes that only take in."""
        return [each for each in self.processes.values() if not each.leads()]

    def kill_all(self) -> None:
        """`kill -9` each."""
        for process in (self, *self.processes.values()):
            process.kill()

    def newest(self, task: str) -> int:
        """The number of a task's newest version."""
        with JournalReader.open(self.database) as journal:
            return journal.newest_number(task)
