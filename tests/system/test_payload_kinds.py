"""Kinds that only tests have travel from the rounds of real agents into aggregates, whoever is killed meanwhile."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.kinds import UPDATE
from tests.kinds.delta.kind import DELTA
from tests.kinds.round_report.consumer import read_state
from tests.kinds.round_report.kind import ROUND_REPORT
from tests.soak.places import PLACES, Kind, Place
from tests.soak.trap import Trap
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import RestartableProcess, environment
from tests.support.waiting import until
from workbench.demo.audit import audit

TASK = "digits"
SAMPLES_PER_ROUND = 4


class Coordinator(CoordinatorProcess):
    """Has the kinds, and a trap."""

    program = "tests.kinds.coordinator"

    def __init__(self, folder: Path, *arguments, **options) -> None:
        super().__init__(folder, *arguments, **options)
        self.trap = Trap(folder / "trap")
        self.variables = self.trap.environment

    def _ask(self, noun: str, *arguments: str) -> Any:
        """Of a process of its own: this one has no such kinds."""
        words = [noun, "--config", str(self.configuration), *arguments, "--json"]
        command = [sys.executable, "-P", "-m", self.program, *words]
        done = subprocess.run(command, capture_output=True, check=True, env=environment() | self.variables)
        assert b"level=ERROR" not in done.stderr, done.stderr
        return json.loads(done.stdout)


class Agent(AgentProcess):
    """Has the kinds, and a trap."""

    program = "tests.kinds.agent"

    def __init__(self, folder: Path, *arguments, **options) -> None:
        super().__init__(folder, *arguments, **options)
        self.trap = Trap(folder / "trap")
        self.variables = self.trap.environment

    def has_settled(self) -> bool:
        """Whether it has trained on all its samples, and all of its payloads have receipts."""
        status = self.status()
        return bool(status) and status["new_samples"][TASK] == status["waiting_updates"] == 0

    def rounds(self) -> int:
        """How many it has finished, by its own database. Only while it does not run."""
        with closing(sqlite3.connect(self.folder / "state" / "agent.db")) as connection:
            return connection.execute("SELECT rounds FROM tasks WHERE task = ?", (TASK,)).fetchone()[0]


class Fleet:
    """Two agents, one of which encrypts: an aggregate takes a payload of each."""

    def __init__(self, folder: Path, broker: Broker, versions_from: str) -> None:
        bundle = folder / "bundle"
        copy_digits_bundle(bundle, versions_from=versions_from, buffer_size=2, max_staleness=1000)
        self.broker, self.versions_from = broker, versions_from
        self.coordinator = Coordinator(folder / "coordinator", broker, [bundle])
        key = self.coordinator.public_key
        self.kitchen = Agent(folder / "kitchen", "kitchen", broker, key)
        self.attic = Agent(folder / "attic", "attic", broker, key, encrypt=True)
        self.agents = self.kitchen, self.attic
        self.rounds = 0
        self.coordinator.start_serving()
        for agent in self.agents:
            agent.start()

    def play_round(self, disaster: Callable[[], None]) -> None:
        """Each agent gets samples for one round, which ends well in spite of the disaster."""
        for agent in self.agents:
            agent.feed(SAMPLES_PER_ROUND, first=SAMPLES_PER_ROUND * self.rounds)
        self.rounds += 1
        disaster()
        for agent in self.agents:
            until(agent.has_settled, f"{agent.name} has its receipts")

    def kill_at(self, place: Place, victim: Coordinator | Agent) -> None:
        """A round in which `victim`, or its worker, dies at that place."""
        victim.trap.arm(place, 1)
        revive = victim.start_serving if isinstance(victim, Coordinator) else victim.start

        def trapped() -> None:
            until(victim.trap.has_sprung, f"somebody died {place}")
            if place not in PLACES[Kind.WORKER]:
                until(lambda: victim.exit_status() == -9, "it is dead")
                revive()

        self.play_round(trapped)

    def kill_broker(self) -> None:
        """A round in the middle of which the broker dies."""

        def struck() -> None:
            self.broker.kill()
            self.broker.start()

        self.play_round(struck)

    def processes(self) -> tuple[RestartableProcess, ...]:
        """But for the broker."""
        return *self.agents, self.coordinator


@pytest.fixture(params=[pytest.param(UPDATE.name, marks=pytest.mark.long), DELTA.name])
def fleet(request, tmp_path: Path, broker: Broker) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, broker, versions_from=request.param)
    yield fleet
    for process in fleet.processes():
        process.kill()


def test_every_round_is_in_one_aggregate_of_each_kind_whoever_is_killed_and_when(fleet) -> None:
    for number, place in enumerate((*PLACES[Kind.AGENT], *PLACES[Kind.WORKER])):
        fleet.kill_at(place, fleet.agents[number % 2])
    for place in PLACES[Kind.COORDINATOR]:
        fleet.kill_at(place, fleet.coordinator)
    fleet.kill_broker()
    until(lambda: len(newest_report(fleet)) >= fleet.rounds, "all reports are aggregated")
    for agent in fleet.agents:
        agent.stop()
    check_aggregates(fleet)


def newest_report(fleet: Fleet) -> list[int]:
    with fleet.coordinator.journal() as journal:
        return read_state(journal.newest_aggregate(TASK, ROUND_REPORT.number).state).get("kitchen", [])


def check_aggregates(fleet: Fleet) -> None:
    """Two payloads of each round, each of them in one aggregate; the reports say how far each round had come."""
    rounds, version_kind = fleet.rounds, DELTA if fleet.versions_from == DELTA.name else UPDATE
    assert [agent.rounds() for agent in fleet.agents] == [rounds] * 2
    with fleet.coordinator.journal() as journal:
        rows = list(journal.payloads(TASK))
        found = audit({agent.name: agent.ledger() for agent in fleet.agents}, rows)
        reports = journal.newest_aggregate(TASK, ROUND_REPORT.number)
        assert journal.newest_number(TASK) == rounds
    assert (found.lost, found.duplicated, found.waiting, found.rejected) == (0, 0, 0, 0)
    assert reports.number == rounds
    marks = [SAMPLES_PER_ROUND * number for number in range(1, rounds + 1)]
    assert read_state(reports.state) == {agent.name: marks for agent in fleet.agents}
    held = Counter((row.kind, row.aggregate) for row in rows)
    assert held == {
        (kind.number, number): 2 for kind in (version_kind, ROUND_REPORT) for number in range(1, rounds + 1)
    }
    verified = fleet.coordinator.tasks("verify", TASK)
    assert (verified["compared"], verified["equal"]) == (rounds, True)
