"""The processes of a soak: a broker, a coordinator and some agents, each started again whenever it was killed."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from shutil import rmtree
from typing import Protocol

import psutil

from broker_coordinator.storage.database import Database
from bundle_runtime.bundle import Bundle
from tests.soak import agent as agent_program
from tests.soak import coordinator as coordinator_program
from tests.soak.forked import ForkedProcess
from tests.soak.places import Kind
from tests.soak.trap import Trap
from tests.soak.variants import VARIANTS
from tests.support.agent import AgentProcess, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import environment

TASK = "digits"

KEEP_ALL = "[retention]\nversions = 1000000\n"
MAXIMUM_SAMPLES = 40
"""Old ones make room: a round stays as short as it was."""

FIRST_SAMPLES = 4
MOST_TRAINING = 2
"""Agents that get a sample, so that they train, at the same time."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What a soak runs. `variant` is one of `VARIANTS`."""

    agents: int
    variant: str
    database: Database | None
    wipe_broker: bool


class Member(Protocol):
    """A process of the fleet that is killed and revived."""

    name: str
    trap: Trap

    @property
    def pid(self) -> int: ...
    def exit_status(self) -> int | None: ...
    def kill(self) -> None: ...
    def revive(self) -> None: ...
    def log(self) -> str: ...


class SoakBroker(Broker):
    """A broker that loses its disk at each kill, if `wiped`. No trap reaches into it."""

    def __init__(self, folder: Path, *, wiped: bool) -> None:
        super().__init__(folder)
        self.name, self.trap, self._wiped = "broker", Trap(folder / "trap"), wiped

    def revive(self) -> None:
        """Start it."""
        if self._wiped:
            self.wipe()
        self.start()


class SoakCoordinator(CoordinatorProcess):
    """A coordinator with a trap."""

    def __init__(self, folder: Path, broker: Broker, bundle: Path, database: Database | None) -> None:
        super().__init__(folder, broker, [bundle], database=database, more=KEEP_ALL)
        self.name, self.trap = "coordinator", Trap(folder / "trap")

    def revive(self) -> None:
        """Start it; it connects a little later."""
        self._skip_log()
        arguments = ["broker-coordinator", "run", "--config", str(self.configuration)]
        self._process = ForkedProcess(coordinator_program.main, arguments, self.trap.environment, self.log_file)


class Look(Enum):
    """An agent from outside. `WAITING` is for a receipt."""

    ABSENT = "absent"
    TRAINING = "training"
    WAITING = "waiting"
    IDLE = "idle"


class SoakAgent(AgentProcess):
    """An agent with a trap, and how many samples it got."""

    def __init__(self, folder: Path, name: str, broker: Broker, coordinator: CoordinatorProcess) -> None:
        super().__init__(folder, name, broker, coordinator.public_key, new_samples=1, maximum_samples=MAXIMUM_SAMPLES)
        self.trap, self._fed = Trap(folder / "trap"), 0

    @property
    def fed(self) -> int:
        """Samples that it got so far."""
        return self._fed

    def revive(self) -> None:
        """Start it; it answers a little later."""
        arguments = ["edge-agent", "run", "--config", str(self.configuration)]
        self._process = ForkedProcess(
            agent_program.main, arguments, environment() | self.trap.environment, self.log_file
        )

    def kill_worker(self) -> bool:
        """`kill -9` its training worker; False where it has none just now."""
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(self.pid).children():
                worker.kill()
                return True
        return False

    def look(self) -> "Look":
        """What it does right now."""
        status = self.status()
        if not status:
            return Look.ABSENT
        if status["state"] != "sleeping" or status["new_samples"][TASK]:
            return Look.TRAINING
        return Look.WAITING if status["waiting_updates"] else Look.IDLE

    def feed_more(self) -> None:
        """A sample, for one more round; where it can't be reached, it gets it another time."""
        with suppress(OSError):
            for _ in range(1 if self._fed else FIRST_SAMPLES):
                self.ask(sample(self._fed))
                self._fed += 1


class Fleet:
    """Everything that runs, in `folder`."""

    def __init__(self, folder: Path, plan: FleetPlan) -> None:
        self.plan = plan
        self.bundle: Bundle = VARIANTS[plan.variant](folder / "bundle")
        self.broker = SoakBroker(folder / "broker", wiped=plan.wipe_broker)
        self.coordinator = SoakCoordinator(folder / "coordinator", self.broker, folder / "bundle", plan.database)
        names = [f"pi-{number:02}" for number in range(1, plan.agents + 1)]
        self.agents = [SoakAgent(folder / name, name, self.broker, self.coordinator) for name in names]
        self.members: list[Member] = [self.broker, self.coordinator, *self.agents]

    def candidates(self, kind: Kind) -> list[Member]:
        """Who can be the victim of a strike of this kind, or the owner of the victim."""
        return [self.broker] if kind is Kind.BROKER else [self.coordinator] if kind is Kind.COORDINATOR else self.agents

    def feed(self, first: Sequence[Member]) -> None:
        """Give a sample to whoever has nothing to do, as long as not too many train; to some before all others."""
        looks = {agent: agent.look() for agent in self.agents}
        room = MOST_TRAINING - list(looks.values()).count(Look.TRAINING)
        idle = [agent for agent, look in looks.items() if look is Look.IDLE]
        for agent in sorted(idle, key=lambda agent: (agent not in first, agent.fed))[: max(0, room)]:
            agent.feed_more()

    def is_at_rest(self) -> bool:
        """Whether nothing is on its way."""
        return all(agent.look() is Look.IDLE for agent in self.agents)

    def stop(self) -> None:
        """End all in order, the devices first."""
        for process in (*self.agents, self.coordinator, self.broker):
            process.stop()

    def kill(self) -> None:
        """End whatever still runs."""
        for member in self.members:
            member.kill()


@contextmanager
def run_folder(kept: Path | None) -> Iterator[Path]:
    """`kept`, or a folder of its own that goes away: a Unix socket's path has room for 107 characters."""
    folder = kept or Path(tempfile.mkdtemp(prefix="edgeflock-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if kept is None:
            rmtree(folder)
