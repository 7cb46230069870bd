"""Devices learn a distribution over weights together, on a real broker, and answer with how sure they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.codec import gaussian_places, prior_of, read_distribution
from fleet_protocol.posterior_plan import PosteriorPlan
from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from workbench.demo.audit import audit

NAMES = ("attic", "barn")
DIGITS = 10
PLAN = PosteriorPlan(damping=0.5)
MOST_ROUNDS = 8
NARROWER = 0.9


class Pair:
    """Two devices; a version is made of an update of each."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.bundle = copy_digits_bundle(folder / "digits", feedback="ef21", posterior=PLAN, buffer_size=len(NAMES))
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        self.agents = [
            AgentProcess(folder / name, name, broker, self.coordinator.public_key, new_samples=DIGITS) for name in NAMES
        ]
        for agent in self.agents:
            agent.start()

    def end(self) -> None:
        for process in (*self.agents, self.coordinator):
            process.kill()

    def round(self, *, killed: bool = False) -> None:
        before = self.version()
        for agent in self.agents:
            for number in range(DIGITS):
                assert agent.ask(sample(number)) == {"ok": True}
        if killed:
            self.agents[0].kill()
            self.agents[0].start()
        until(lambda: self.version() > before, "both updates make a version")

    def version(self) -> int:
        with self.coordinator.journal() as journal:
            return journal.newest_number("digits")

    def answers(self) -> list[dict]:
        asked = [{"inputs": sample(number)["inputs"]} for number in range(DIGITS)]
        told = [self.agents[0].ask({"command": "predict", "task": "digits", "reading": each}) for each in asked]
        return [each["prediction"] for each in told]

    def narrowest(self) -> float:
        """The smallest deviation of a weight with a Gaussian, in those of the prior."""
        task = self.bundle.description
        with self.coordinator.journal() as journal:
            _, deviation = read_distribution(journal.newest_version("digits").weights, task, PLAN)
        return float((deviation[gaussian_places(task, PLAN)] / prior_of(task, PLAN)).min())

    def right(self) -> int:
        return sum(each["value"] == number for number, each in enumerate(self.answers()))


@pytest.fixture
def pair(tmp_path: Path, broker: Broker) -> Iterator[Pair]:
    made = Pair(tmp_path, broker)
    yield made
    made.end()


def test_two_devices_learn_and_say_how_uncertain_they_are(pair: Pair) -> None:
    pair.round()
    pair.round(killed=True)
    rounds = 0
    while rounds < MOST_ROUNDS and (pair.right() < DIGITS or pair.narrowest() >= NARROWER):
        pair.round()
        rounds += 1
    assert pair.right() == DIGITS
    assert all(0 < each["uncertainty"] < 0.5 for each in pair.answers())
    for agent in pair.agents:
        agent.stop()
    ledgers = {agent.name: agent.ledger() for agent in pair.agents}
    task = pair.bundle.description
    with pair.coordinator.journal() as journal:
        verdict = audit(ledgers, list(journal.updates("digits")))
        mean, _ = read_distribution(journal.newest_version("digits").weights, task, PLAN)
    assert (verdict.lost, verdict.duplicated, verdict.rejected, verdict.waiting) == (0, 0, 0, 0)
    assert mean.size == task.parameter_count
    assert pair.narrowest() < NARROWER, "samples have settled some weight"
    verified = pair.coordinator.tasks("verify", "digits")
    assert verified["equal"], verified
