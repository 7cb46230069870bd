"""Ten devices are asked about their samples over a real Mosquitto: one lies, one is private, one is killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_coordinator.storage.query_registry import QueryRegistry
from fleet_protocol.kinds import ANALYTICS_REPORT, AnalyticsReport, AnswerOutcome, Outcome, encode_payload
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
    'name = "rooms"\ntask = "digits"\nask = "heavy_hitters"\nfield = "text.room"\nlongest = 4\nvotes = 3\n'
    "minimum_devices = 8\nround_hours = 0.0001\n"
)
NOISY = (
    'name = "pixel"\ntask = "digits"\nask = "mean"\nfield = "input[1]"\nlower = 0.0\nupper = 1.0\n'
    "epsilon = 1.5\nminimum_devices = 5\n"
)


def label_of(number: int) -> int:
    """Device n has samples of the class n % 4 alone."""
    return number % 4


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    copy_digits_bundle(tmp_path / "digits")
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def agents(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[dict[str, AgentProcess]]:
    """They have samples and never train; only the silent one's owner has not said what may be asked."""
    agents = {
        name: AgentProcess(
            tmp_path / name, name, broker, coordinator.public_key, new_samples=1000, encrypt=name == HONEST[0]
        )
        for name in (*HONEST, SILENT)
    }
    for number, agent in enumerate(agents.values()):
        (agent.folder / "room.txt").write_text("hall\n" if number % 2 else "attic room\n")
        if agent.name != SILENT:
            agent.configuration.write_text(agent.configuration.read_text() + POLICY)
        agent.start()
        for _ in range(number + 1):
            assert agent.ask(sample(label_of(number))) == {"ok": True}
    yield agents
    for agent in agents.values():
        agent.kill()


@pytest.fixture
def liar(broker: Broker, coordinator: CoordinatorProcess) -> Iterator[ConnectedDevice]:
    liar = ConnectedDevice(LIAR, broker, coordinator.public_key)
    assert liar.publish_until_receipt(liar.enrolment()).outcome is Outcome.ACCEPTED
    yield liar
    liar.close()


def publish(coordinator: CoordinatorProcess, folder: Path, text: str) -> int:
    """Publish a query; its number, which no operator needs."""
    file = folder / "query.toml"
    file.write_text(text)
    name = coordinator.analytics("publish", str(file))["query"]
    with coordinator.journal() as journal:
        return QueryRegistry(journal.engine).named(name).query.number


def until_answered(coordinator: CoordinatorProcess, query: str, devices: int) -> dict[str, Any]:
    def shown() -> dict[str, Any] | None:
        found = coordinator.analytics("show", query)
        return found if found["answered"] >= devices else None

    return until(shown, f"{devices} devices have answered {query}")


def test_fleet_is_asked_and_one_device_that_lies_moves_a_count_by_one(tmp_path, coordinator, agents, liar) -> None:
    agents[HONEST[1]].kill()
    number = publish(coordinator, tmp_path, LABELS)
    until_answered(coordinator, "labels", 7)
    coordinator.kill()
    agents[HONEST[1]].start()
    coordinator.start_serving()
    shown = until_answered(coordinator, "labels", 8)
    assert shown["result"] == "8 devices have answered; shown from 9"
    assert "labels" not in shown

    def lie(sequence: int, *numbers: float) -> Any:
        said = AnalyticsReport(number, 0, AnswerOutcome.ANSWERED, numbers)
        return liar.tell(liar.sign(ANALYTICS_REPORT, encode_payload(said), sequence=sequence, task="digits"))

    for sequence, absurd in enumerate([(1e300, *[0.0] * 9), (5.0, -4.0, *[0.0] * 8), (1.0,), (float("nan"),) * 10], 1):
        receipt = lie(sequence, *absurd)
        assert receipt.outcome is Outcome.REJECTED, receipt
        assert receipt.reason in {"out_of_bounds", "wrong_shape", "not_finite"}
    for sequence in (11, 12):
        assert lie(sequence, *[0.0] * 9, 1.0).outcome is Outcome.ACCEPTED
    found = until_answered(coordinator, "labels", 9)
    assert [row["count"] for row in found["labels"]] == [2, 2, 2, 2, 0, 0, 0, 0, 0, 1]
    assert found["refusals"] == {"not_allowed": 1}
    diagnosed = coordinator.tasks("diagnose", "digits")["labels"]
    assert [(row["devices"], row["unlike_the_fleet"]) for row in diagnosed] == [(9, 9)]


def test_words_are_found_round_by_round_and_a_stopped_query_asks_nobody(tmp_path, coordinator, agents) -> None:
    publish(coordinator, tmp_path, ROOMS)
    until(lambda: coordinator.analytics("show", "rooms")["state"] == "done", "all rounds are over")
    found = coordinator.analytics("show", "rooms")
    assert [(row["word"], row["votes"]) for row in found["words"]] == [("hall", 4)], "attic room is too long"
    publish(coordinator, tmp_path, NOISY)
    shown = until_answered(coordinator, "pixel", 8)
    assert shown["epsilon"] == 1.5
    assert coordinator.analytics("stop", "pixel")["state"] == "stopped"
    assert [row["state"] for row in coordinator.analytics("list")] == ["done", "stopped"]
    logs = [agents[name].log() for name in HONEST]
    assert all(log.count("query=pixel") == 1 and "epsilon=1.5" in log for log in logs)
    assert "outcome=not_allowed" in agents[SILENT].log()
