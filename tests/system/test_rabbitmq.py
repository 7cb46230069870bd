"""A fleet on RabbitMQ's MQTT plug-in learns, and goes on when the broker and the coordinator have been killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.coordinator import CoordinatorProcess
from tests.support.rabbitmq import RabbitMq
from tests.support.waiting import until
from workbench.demo.audit import audit

TASK = "digits"
LEARN_SECONDS = 120.0
ROUND = 4
"""Samples that a device waits for."""

pytestmark = pytest.mark.long


@pytest.fixture
def rabbitmq(tmp_path: Path) -> Iterator[RabbitMq]:
    server = RabbitMq(tmp_path / "rabbitmq")
    server.start()
    yield server
    server.end()


@pytest.fixture
def coordinator(tmp_path: Path, rabbitmq: RabbitMq) -> Iterator[CoordinatorProcess]:
    copy_digits_bundle(tmp_path / TASK, buffer_size=2)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", rabbitmq, [tmp_path / TASK], protocol="3.1.1")
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def agents(tmp_path: Path, rabbitmq: RabbitMq, coordinator: CoordinatorProcess) -> Iterator[list[AgentProcess]]:
    made = [
        AgentProcess(tmp_path / name, name, rabbitmq, coordinator.public_key, protocol="3.1.1")
        for name in ("kitchen", "hall")
    ]
    for agent in made:
        agent.start()
    yield made
    for agent in made:
        agent.kill()


def test_fleet_learns_and_goes_on_after_kills_of_broker_and_coordinator(rabbitmq, coordinator, agents):
    fed = 0

    def learn(occasion: str) -> None:
        nonlocal fed
        for agent in agents:
            before = agent.status()["accepted_updates"]
            agent.feed(ROUND, fed)
            until(
                lambda agent=agent, before=before: agent.status().get("accepted_updates", 0) > before,
                f"an update of {agent.name} is accepted {occasion}",
                LEARN_SECONDS,
            )
        fed += ROUND

    learn("at first")
    learn("from the version that came of it")
    rabbitmq.kill()
    rabbitmq.start()
    learn("after the broker's death")
    coordinator.kill()
    coordinator.start_serving()
    learn("after the coordinator's death")
    for agent in agents:
        agent.stop()
    with coordinator.journal() as journal:
        verdict = audit({agent.name: agent.ledger() for agent in agents}, list(journal.updates(TASK)))
        newest = journal.newest_version(TASK)

    assert (verdict.lost, verdict.duplicated) == (0, 0)
    assert newest is not None and newest.number >= 2
