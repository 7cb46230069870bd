"""A fleet whose coordinator's database is restored, made anew or moved, or whose task gets another bundle, goes on.

The shipped programs on a real Mosquitto. An agent trains; a device reduced to its protocol makes versions quickly.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from broker_coordinator.cli import main
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from workbench.demo.audit import audit

PLAN = {"buffer_size": 1, "max_staleness": 3}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return copy_digits_bundle(tmp_path / "digits", **PLAN)


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker, bundle: Bundle) -> Iterator[CoordinatorProcess]:
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def agent(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    agent.start()
    yield agent
    agent.kill()


@pytest.fixture
def make_versions(
    broker: Broker, coordinator: CoordinatorProcess, bundle: Bundle
) -> Iterator[Callable[[int], ConnectedDevice]]:
    """Has other devices make so many versions by turns, as one alone has only a share; returns the first of them."""
    devices = [ConnectedDevice(name, broker, coordinator.public_key) for name in ("garden", "hall", "porch", "shed")]
    sent = 0

    def make(count: int) -> ConnectedDevice:
        nonlocal sent
        for device in devices:
            device.tell(device.enrolment())
        for _ in range(count):
            device = devices[sent % len(devices)]
            sent += 1
            before = held(coordinator)
            data = update(device, bundle, sent, base_version=newest(coordinator))
            assert device.tell(data).outcome is Outcome.ACCEPTED
            until(partial(lambda count: held(coordinator) > count, before), "the version is made")
        return devices[0]

    yield make
    for device in devices:
        device.close()


def update(device: ConnectedDevice, bundle: Bundle, sequence: int, **header: int) -> bytes:
    return device.update(sequence, task="digits", shapes=bundle.description.shapes, **header)


def held(coordinator: CoordinatorProcess) -> int:
    """How many of the other devices' updates versions hold."""
    with coordinator.journal() as journal:
        return sum(row.device != "kitchen" and row.aggregate is not None for row in journal.updates("digits"))


def newest(coordinator: CoordinatorProcess) -> int:
    with coordinator.journal() as journal:
        return journal.newest_number("digits")


def bases_of(coordinator: CoordinatorProcess, device: str) -> list[int]:
    with coordinator.journal() as journal:
        return [row.base_version for row in journal.updates("digits") if row.device == device]


def train(agent: AgentProcess, coordinator: CoordinatorProcess) -> None:
    """Have the agent train on four more samples, and its update accepted."""
    before = len(bases_of(coordinator, agent.name))
    agent.feed(4, first=agent.status()["samples"].get("digits", 0))
    until(lambda: len(bases_of(coordinator, agent.name)) > before, "the agent's update is accepted")


def connect_again(agent: AgentProcess, knowing: int) -> None:
    """An agent that sleeps hears of no version; one that connects hears of the newest."""
    agent.stop()
    agent.start()
    until(lambda: agent.status()["versions"] == {"digits": knowing}, f"the agent knows version {knowing}")


def back_up(coordinator: CoordinatorProcess, file: Path) -> None:
    """As docs/operating.md says, while the coordinator runs."""
    with closing(sqlite3.connect(coordinator.database)) as source, closing(sqlite3.connect(file)) as target:
        source.backup(target)


def put_back(coordinator: CoordinatorProcess, file: Path | None) -> None:
    """Put a backup, or nothing, in the place of the database. Only while the coordinator does not run."""
    for old in files_of(coordinator):
        old.unlink()
    if file is not None:
        shutil.copy(file, coordinator.database)


def files_of(coordinator: CoordinatorProcess) -> list[Path]:
    return list(coordinator.database.parent.glob("coordinator.db*"))


@pytest.mark.parametrize(
    "restored",
    [pytest.param(True, id="restored from a backup", marks=pytest.mark.long), pytest.param(False, id="made anew")],
)
def test_fleet_follows_an_older_database_loses_no_sample_and_counts_nothing_twice(
    coordinator, agent, make_versions, tmp_path, restored
) -> None:
    bundle = load_bundle(tmp_path / "digits")
    train(agent, coordinator)
    garden = make_versions(1)
    back_up(coordinator, tmp_path / "backup.db")
    make_versions(8)
    stale = update(garden, bundle, 50, base_version=2 if restored else 0)
    assert garden.tell(stale).reason == Reason.TOO_STALE
    connect_again(agent, knowing=10)
    coordinator.kill()
    put_back(coordinator, tmp_path / "backup.db" if restored else None)
    coordinator.start_serving()
    until(lambda: "event=generation_begun" in coordinator.log(), "the operator is told")
    garden.tell(garden.enrolment())
    garden.received.receipts.clear()
    assert garden.tell(stale).reason == Reason.OLD_GENERATION, "it was taken back once, and is not taken when replayed"
    train(agent, coordinator)
    assert bases_of(coordinator, agent.name)[-1] == (2 if restored else 0)
    assert "event=generation_followed" in agent.log()
    assert "event=old_manifest_ignored" not in agent.log()
    assert agent.status()["samples"] == {"digits": 8}
    (listed,) = coordinator.tasks("list")
    assert (listed["generation"], listed["version"]) == (1, 3 if restored else 1)
    coordinator.kill()
    coordinator.start_serving()
    train(agent, coordinator)
    assert coordinator.log().count("event=generation_begun") == 1
    assert coordinator.tasks("verify", "digits")["equal"]
    agent.stop()
    with coordinator.journal() as journal:
        found = audit(
            {agent.name: agent.ledger()}, [row for row in journal.updates("digits") if row.device == "kitchen"]
        )
    assert (found.duplicated, found.waiting) == (0, 0)


@pytest.mark.long
def test_fleet_goes_on_where_the_database_was_moved_to_postgresql(
    coordinator, agent, make_versions, postgresql
) -> None:
    train(agent, coordinator)
    make_versions(2)
    coordinator.stop()
    target = postgresql.database("moved").render_as_string()
    assert main(["database", "copy", str(coordinator.database), target]) == 0
    text = coordinator.configuration.read_text()
    coordinator.configuration.write_text(text.replace(str(coordinator.database), target))
    put_back(coordinator, None)
    coordinator.database = postgresql.url("moved")
    coordinator.start_serving()
    train(agent, coordinator)
    assert bases_of(coordinator, agent.name) == [0, 3]
    assert "generation_begun" not in coordinator.log()
    assert coordinator.tasks("verify", "digits")["equal"]


def test_operator_renews_a_task_where_the_broker_has_lost_its_messages_too(
    coordinator, agent, make_versions, broker, tmp_path
) -> None:
    bundle = load_bundle(tmp_path / "digits")
    make_versions(1)
    back_up(coordinator, tmp_path / "backup.db")
    garden = make_versions(2)
    connect_again(agent, knowing=3)
    coordinator.kill()
    broker.kill()
    broker.wipe()
    put_back(coordinator, tmp_path / "backup.db")
    broker.start()
    coordinator.start_serving()
    until(lambda: "event=old_manifest_ignored" in agent.log(), "the agent says that it knows a later version")
    assert "tasks renew digits --after-generation 0" in agent.log()
    garden.tell(garden.enrolment())
    assert garden.tell(update(garden, bundle, 50, base_version=3)).reason == Reason.UNKNOWN_VERSION
    until(lambda: "event=database_behind_devices" in coordinator.log(), "the operator is told")
    assert "tasks renew digits" in coordinator.log()
    assert coordinator.tasks("renew", "digits")[0]["generation"] == 1
    train(agent, coordinator)
    assert bases_of(coordinator, agent.name) == [1]


def test_device_follows_another_bundle_under_the_same_name_and_a_removed_task_ends(
    coordinator, agent, tmp_path
) -> None:
    train(agent, coordinator)
    copy_digits_bundle(tmp_path / "changed", buffer_size=1, max_staleness=5)
    (published,) = coordinator.tasks("publish", str(tmp_path / "changed"))
    assert (published["generation"], published["version"]) == (1, 2)
    until(lambda: bases_of(coordinator, agent.name) == [0, 2], "it trains again on the samples that it has")
    assert agent.status()["samples"] == {"digits": 4}
    assert coordinator.tasks("verify", "digits")["equal"]
    assert coordinator.tasks("remove", "digits")["removed"]
    until(lambda: "event=task_removed" in agent.log(), "the agent is told")
    agent.feed(4, first=4)
    until(lambda: agent.status()["samples"] == {"digits": 8}, "they are stored")
    assert agent.status()["tasks"]["digits"]["state"] == "ended"
    coordinator.tasks("publish", str(tmp_path / "changed"))
    until(lambda: bases_of(coordinator, agent.name)[-1:] == [4], "the task is back, and it trains on all its samples")
    assert agent.status()["samples"] == {"digits": 8}
