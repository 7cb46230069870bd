"""Split learning with every program as it ships: broker, coordinator with its relay, helpers, devices."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.helper import TASK, HelperProcess, SplitAgent, copy_split_bundle
from tests.support.waiting import until


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    copy_split_bundle(tmp_path / TASK, buffer_size=3)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / TASK])
    coordinator.start_serving()
    until(lambda: "relay_connected" in coordinator.log(), "the relay has reached the broker")
    yield coordinator
    coordinator.kill()


@pytest.fixture
def helpers(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[Callable[..., HelperProcess]]:
    """Helpers that the operator allows, and that offer a version."""
    started: list[HelperProcess] = []

    def start(name: str) -> HelperProcess:
        helper = HelperProcess(tmp_path / name, name, broker, coordinator.public_key)
        started.append(helper)
        helper.serve()
        coordinator.helpers("allow", name)
        return helper

    yield start
    for helper in started:
        helper.kill()


@pytest.fixture
def agents(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[Callable[..., SplitAgent]]:
    started: list[SplitAgent] = []

    def start(name: str, **options: Any) -> SplitAgent:
        agent = SplitAgent(tmp_path / name, name, broker, coordinator.public_key, **options)
        started.append(agent)
        agent.start()
        return agent

    yield start
    for agent in started:
        agent.kill()


def versions(coordinator: CoordinatorProcess) -> int:
    with coordinator.journal() as journal:
        newest = journal.newest_version(TASK)
    return newest.number if newest else -1


def test_two_devices_and_a_helper_make_a_version(coordinator, helpers, agents) -> None:
    helper = helpers("cellar-pi")
    kitchen, attic = agents("kitchen"), agents("attic")
    kitchen.feed(16)
    attic.feed(16, first=16)
    until(lambda: versions(coordinator) == 1, "two devices' updates and the helper's made a version")
    assert helper.status()["steps"] >= 2 * 2 * 4, "each of two rounds has four steps, of two passes"
