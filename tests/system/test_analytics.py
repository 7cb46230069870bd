"""Ten devices are asked about their samples over a real Mosquitto: one lies, one is private, one is killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_coordinator.aggregation.analytics.stored_query import QueryState
from broker_coordinator.storage.query_registry import QueryRegistry, RegisteredQuery
from fleet_protocol.kinds import ANALYTICS_REPORT, AnalyticsReport, AnswerOutcome, Outcome, Receipt, encode_payload
from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until

HONEST = [f"pi-{number}" for number in range(8)]
SILENT = "private"
LIAR = "liar"

POLICY = """
[analytics]
epsilon_budget = 10.0
minimum_devices = 5
queries_per_day = 10

[[analytics.fields]]
task = "digits"
field = "label"
exact = true

[[analytics.fields]]
task = "digits"
field = "input"
largest_epsilon = 2.0

[[analytics.fields]]
task = "digits"
field = "text.room"
exact = true

[[texts]]
name = "room"
file = "room.txt"
"""

LABELS = 'name = "labels"\ntask = "digits"\nask = "labels"\nfield = "label"\nminimum_devices = 9\n'
ROOMS = (
    'name = "rooms"\ntask = "digits"\nask = "heavy_hitters"\nfield = "text.room"\nlongest = 2\nvotes = 3\n'
    "minimum_devices = 8\nround_hours = 0.0001\n"
)
NOISY = (
    'name = "pixel"\ntask = "digits"\nask = "mean"\nfield = "input[1]"\nlower = 0.0\nupper = 1.0\n'
    "epsilon = 1.5\nminimum_devices = 5\n"
)


def label_of(number: int) -> int:
    """Device n has samples of the class n % 4 alone."""
    return number % 4


class AskedFleet:
    """A broker, a coordinator, and agents that have samples and never train. One agent's owner allows nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker(folder / "broker")
        self.broker.start()
        copy_digits_bundle(folder / "digits")
        self.coordinator = CoordinatorProcess(folder / "coordinator", self.broker, [folder / "digits"])
        self.coordinator.start_serving()
        self.agents = {name: self._agent(name) for name in (*HONEST, SILENT)}
        for number, agent in enumerate(self.agents.values()):
            (agent.folder / "room.txt").write_text("wc\n" if number % 2 else "attic room\n")
            agent.start()
            for _ in range(number + 1):
                assert agent.ask(sample(label_of(number))) == {"ok": True}

    def _agent(self, name: str) -> AgentProcess:
        key, encrypts = self.coordinator.public_key, name == HONEST[0]
        agent = AgentProcess(self.folder / name, name, self.broker, key, new_samples=1000, encrypt=encrypts)
        if name != SILENT:
            agent.configuration.write_text(agent.configuration.read_text() + POLICY)
        return agent

    def end(self) -> None:
        for process in (*self.agents.values(), self.coordinator, self.broker):
            process.kill()

    def publish(self, text: str) -> int:
        """Publish a query; returns its number."""
        file = self.folder / "query.toml"
        file.write_text(text)
        return self.found(self.coordinator.analytics("publish", str(file))["query"]).query.number

    def found(self, query: str) -> RegisteredQuery:
        with self.coordinator.journal() as journal:
            return QueryRegistry(journal.engine).named(query)

    def shown(self, query: str, devices: int) -> dict[str, Any]:
        """What an operator is shown once so many devices have reported."""
        registered = self.found(query)
        with self.coordinator.journal() as journal:
            registry = QueryRegistry(journal.engine)
            until(lambda: registry.reported(registered) >= devices, f"{devices} devices have reported to {query}")
        return self.coordinator.analytics("show", query)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskedFleet]:
    fleet = AskedFleet(tmp_path_factory.mktemp("asked"))
    yield fleet
    fleet.end()


@pytest.fixture
def liar(fleet: AskedFleet) -> Iterator[ConnectedDevice]:
    liar = ConnectedDevice(LIAR, fleet.broker, fleet.coordinator.public_key)
    assert liar.publish_until_receipt(liar.enrolment()).outcome is Outcome.ACCEPTED
    yield liar
    liar.close()


def test_fleet_is_asked_and_one_device_that_lies_moves_a_count_by_one(fleet: AskedFleet, liar: ConnectedDevice) -> None:
    coordinator, agents = fleet.coordinator, fleet.agents
    agents[HONEST[1]].kill()
    number = fleet.publish(LABELS)
    fleet.shown("labels", 8)
    coordinator.kill()
    agents[HONEST[1]].start()
    coordinator.start_serving()
    shown = fleet.shown("labels", 9)
    assert shown["result"] == "8 devices have answered; shown from 9"
    assert "labels" not in shown

    def lie(sequence: int, *numbers: float) -> Receipt:
        said = AnalyticsReport(number, 0, AnswerOutcome.ANSWERED, numbers)
        return liar.tell(liar.sign(ANALYTICS_REPORT, encode_payload(said), sequence=sequence, task="digits"))

    for sequence, absurd in enumerate([(1e300, *[0.0] * 9), (5.0, -4.0, *[0.0] * 8), (1.0,), (float("nan"),) * 10], 1):
        receipt = lie(sequence, *absurd)
        assert receipt.outcome is Outcome.REJECTED
        assert receipt.reason in {"out_of_bounds", "wrong_shape", "not_finite"}
    for sequence in (11, 12):
        assert lie(sequence, *[0.0] * 9, 1.0).outcome is Outcome.ACCEPTED
    found = fleet.shown("labels", 10)
    assert [row["count"] for row in found["labels"]] == [2, 2, 2, 2, 0, 0, 0, 0, 0, 1]
    assert found["refusals"] == {"not_allowed": 1}
    diagnosed = coordinator.tasks("diagnose", "digits")["labels"]
    assert [(row["devices"], row["unlike_the_fleet"]) for row in diagnosed] == [(9, 9)]


def test_words_are_found_round_by_round_and_a_stopped_query_asks_nobody(fleet: AskedFleet) -> None:
    fleet.publish(ROOMS)
    until(lambda: fleet.found("rooms").state is QueryState.DONE, "all rounds are over")
    found = fleet.coordinator.analytics("show", "rooms")
    assert [(row["word"], row["votes"]) for row in found["words"]] == [("wc", 4)], "attic room is too long"
    fleet.publish(NOISY)
    assert fleet.shown("pixel", 9)["epsilon"] == 1.5
    assert fleet.coordinator.analytics("stop", "pixel")["state"] == "stopped"
    assert {row["query"]: row["state"] for row in fleet.coordinator.analytics("list")}["rooms"] == "done"
    logs = [fleet.agents[name].log() for name in HONEST]
    assert all(log.count("query=pixel") == 1 and "epsilon=1.5" in log for log in logs)
    assert "outcome=not_allowed" in fleet.agents[SILENT].log()
