"""The shipped agent against the shipped coordinator over a real Mosquitto: from a sample to a new version."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from edge_agent.cli import main as edge_agent
from fleet_protocol import topics
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.fleet import FLEET
from tests.support.waiting import until
from tests.support.wiretap import Wiretap
from workbench.demo.audit import Audit, audit

BUFFER_SIZE = 2


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    copy_digits_bundle(tmp_path / "digits", buffer_size=BUFFER_SIZE)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def agents(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def start(name: str, **options: Any) -> AgentProcess:
        agent = AgentProcess(tmp_path / name, name, broker, coordinator.public_key, **options)
        started.append(agent)
        agent.start()
        return agent

    yield start
    for agent in started:
        agent.kill()


def versions(coordinator: CoordinatorProcess) -> int:
    with coordinator.journal() as journal:
        newest = journal.newest_version("digits")
    return newest.number if newest else -1


def delivered(agent: AgentProcess, count: int) -> None:
    until(lambda: agent.status().get("accepted_updates", 0) >= count, f"{count} updates of {agent.name} accepted")


def audited(coordinator: CoordinatorProcess, *agents: AgentProcess) -> Audit:
    """The verdict once every agent has ended."""
    for agent in agents:
        agent.stop()
    with coordinator.journal() as journal:
        return audit({agent.name: agent.ledger() for agent in agents}, list(journal.updates("digits")))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_samples_become_a_version_that_other_devices_train_on(coordinator, agents, broker, protocol) -> None:
    wiretap = Wiretap(broker)
    kitchen, attic = agents("kitchen", protocol=protocol), agents("attic", protocol=protocol)
    kitchen.feed(4)
    delivered(kitchen, 1)
    attic.feed(4)
    delivered(attic, 1)
    until(lambda: wiretap.announced() == 1, "two updates made a version")
    wiretap.close()
    attic.feed(4, first=4)
    delivered(attic, 2)
    with coordinator.journal() as journal:
        assert [row.base_version for row in journal.updates("digits")] == [0, 0, 1]
    verdict = audited(coordinator, kitchen, attic)
    assert (verdict.lost, verdict.duplicated, verdict.waiting) == (0, 0, 0)


def test_samples_that_are_spent_and_too_few_of_them_are_said_and_new_ones_are_trained_on(tmp_path, broker) -> None:
    copy_digits_bundle(tmp_path / "digits", maximum_epochs=5, buffer_size=1)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    agent.start()
    try:
        until(lambda: "event=waiting_for_samples task=digits stored=0 missing=4" in agent.log(), "it says what lacks")
        agent.feed(4)
        until(lambda: agent.status()["accepted_updates"] == 1, "the first round's update was accepted")
        agent.feed(4)
        until(lambda: "event=samples_spent task=digits" in agent.log(), "the same samples again are not trained on")
        agent.stop()
        agent.start()
        agent.feed(4, first=4)
        until(lambda: agent.status()["accepted_updates"] == 1, "new ones are")
    finally:
        agent.kill()
        coordinator.kill()


def test_main_process_maps_neither_numpy_nor_onnxruntime_after_a_round(coordinator, agents) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    maps = Path(f"/proc/{agent.pid}/maps").read_text()
    assert "sqlite" in maps
    assert "numpy" not in maps
    assert "onnxruntime" not in maps


def test_agent_that_is_up_before_its_coordinator_takes_part_once_it_comes(coordinator, agents, broker) -> None:
    coordinator.kill()
    broker.kill()
    broker.wipe()  # and with it the coordinator's session: nothing waits for it
    broker.start()
    agent = agents("kitchen")
    until(lambda: "event=broker_connected" in agent.log(), "the agent has reached the broker")
    agent.feed(4)
    coordinator.start()
    delivered(agent, 1)
    assert audited(coordinator, agent).lost == 0


def test_device_that_a_new_database_does_not_know_enrols_again_although_it_only_asks_for_files(
    coordinator, agents
) -> None:
    agent = agents("kitchen")
    until(lambda: "event=enrolled" in agent.log(), "the agent is enrolled")
    agent.kill()
    coordinator.kill()
    shutil.rmtree(agent.folder / "state" / "blobs")
    for file in coordinator.database.parent.glob("coordinator.db*"):
        file.unlink()
    coordinator.start()
    agent.start()
    agent.feed(4)
    delivered(agent, 1)


@pytest.mark.parametrize("retained", [b"", b"junk"], ids=["lost", "replaced"])
def test_device_that_finds_no_manifest_is_sent_one(coordinator, agents, broker, retained) -> None:
    publish.single(
        topics.manifest(FLEET, "digits"), retained, qos=1, retain=True, hostname=broker.host, port=broker.port
    )
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)


def test_without_a_broker_samples_are_kept_and_trained_on_later(coordinator, agents, broker) -> None:
    broker.stop()
    agent = agents("kitchen")
    agent.feed(6)
    until(lambda: "event=broker_unreachable" in agent.log(), "the agent says that no broker answers")
    assert agent.status()["samples"] == {"digits": 6}
    broker.start()
    delivered(agent, 1)
    assert audited(coordinator, agent).lost == 0


def test_update_made_while_the_broker_was_away_is_delivered_when_it_is_back(coordinator, agents, broker) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    broker.kill()
    agent.feed(4, first=4)
    until(lambda: agent.status()["waiting_updates"] == 1, "an update was spooled")
    agent.kill()
    agent.start()
    assert agent.status()["waiting_updates"] == 1
    broker.start()
    until(lambda: agent.status()["waiting_updates"] == 0, "the update was receipted")
    verdict = audited(coordinator, agent)
    assert (verdict.lost, verdict.duplicated) == (0, 0)
    with coordinator.journal() as journal:
        assert len(list(journal.updates("digits"))) == 2


def test_device_whose_memory_was_wiped_continues_behind_its_earlier_numbers(coordinator, agents) -> None:
    agent = agents("kitchen")
    for life in range(3):
        agent.feed(4, first=4 * life)
        delivered(agent, 1)
        agent.stop()
        agent.wipe()
        agent.start()
        with coordinator.journal() as journal:
            assert [row.sequence for row in journal.updates("digits")] == list(range(1, life + 2))


@pytest.mark.parametrize("later_lives", [pytest.param(1, marks=pytest.mark.long), 3])
def test_device_whose_card_was_written_back_fetches_and_trains_on_the_newest_version(
    tmp_path, coordinator, agents, later_lives
) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    agent.stop()
    shutil.copytree(agent.folder / "state", tmp_path / "card")
    for life in range(later_lives):
        agent.start()
        for round_number in range(1, 4):
            agent.feed(4, first=12 * life + 4 * round_number)
            delivered(agent, round_number)
        boot = agent.status()["boot"]
        agent.stop()
    agent.wipe()
    shutil.copytree(tmp_path / "card", agent.folder / "state")
    agent.start()
    newest = versions(coordinator)
    until(lambda: agent.status()["versions"].get("digits") == newest, "it has heard of the newest version")
    agent.feed(4, first=40)
    delivered(agent, 1)
    with coordinator.journal() as journal:
        assert list(journal.updates("digits"))[-1].base_version == newest
    if later_lives > 1:
        assert agent.status()["boot"] == boot + 1
        assert agent.log().count("event=state_lost") == 1


def test_device_waits_for_approval_and_its_update_is_not_lost(tmp_path, broker) -> None:
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    coordinator = CoordinatorProcess(tmp_path / "strict", broker, [tmp_path / "digits"], enrolment="closed")
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    agent.start()
    try:
        agent.feed(4)
        until(lambda: "event=enrolment_refused" in agent.log(), "the agent says that it is not approved")
        shown = agent.status()
        assert shown["waiting_updates"] == 0
        assert shown["tasks"]["digits"]["state"] == "unenrolled"
        assert shown["tasks"]["digits"]["reason"].startswith("not enrolled: unknown_key")
        coordinator.devices("approve", "kitchen", agent.public_key)
        until(lambda: agent.status()["accepted_updates"] == 1, "the update was accepted")
    finally:
        agent.kill()
        coordinator.kill()


def test_owner_asks_for_rounds_and_sees_that_the_operator_has_paused_the_task(coordinator, agents, capsys) -> None:
    agent = agents("kitchen", new_samples=1000)
    agent.feed(4)
    edge_agent(["--config", str(agent.configuration), "train", "--now"])
    delivered(agent, 1)
    assert agent.status()["tasks"]["digits"]["waits_for"] == "1000 more new samples"
    coordinator.tasks("pause", "digits")
    os.kill(agent.pid, signal.SIGUSR1)
    until(lambda: agent.status()["tasks"]["digits"]["state"] == "paused", "it is told of the pause")
    capsys.readouterr()
    edge_agent(["--config", str(agent.configuration), "status"])
    assert "digits: paused; task paused: task digits is paused by its operator" in capsys.readouterr().out
    coordinator.tasks("remove", "digits")
    until(lambda: agent.status()["tasks"]["digits"]["state"] == "ended", "it is told of the end")


def test_revoked_device_keeps_its_update_until_it_is_approved_again(coordinator, agents) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    coordinator.devices("revoke", "kitchen")
    agent.feed(4, first=4)
    until(lambda: Reason.REVOKED_KEY in agent.log(), "the agent was told")
    assert agent.status()["waiting_updates"] == 1
    agent.stop()
    assert len(agent.ledger().waiting) == 1


def test_messages_of_a_false_coordinator_are_refused(tmp_path, coordinator, broker) -> None:
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, SigningKey.generate().verify_key)
    agent.start()
    try:
        agent.feed(4)
        until(lambda: "is not the pinned coordinator's" in agent.log(), "the manifest was refused")
        assert agent.status()["versions"] == {}
    finally:
        agent.kill()


def test_altered_file_in_the_cache_is_fetched_again(coordinator, agents) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    for file in (agent.folder / "state" / "blobs").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    agent.feed(4, first=4)
    delivered(agent, 2)
    assert "event=round_failed" not in agent.log()


def test_stopped_agent_says_that_it_is_offline(coordinator, agents) -> None:
    agent = agents("kitchen")
    until(lambda: _presence(coordinator) == "online", "the coordinator knows that it is online")
    assert agent.stop() == 0
    until(lambda: _presence(coordinator) == "offline", "and that it left")


def _presence(coordinator: CoordinatorProcess) -> str:
    return next((device["presence"] for device in coordinator.devices("list")), "")


def test_nothing_is_trained_from_a_version_that_the_coordinator_does_not_know(coordinator, agents) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    until(lambda: agent.status()["versions"] == {"digits": 0}, "the manifest came")
    agent.kill()
    with closing(sqlite3.connect(agent.folder / "state" / "agent.db")) as memory, memory:
        memory.execute("UPDATE manifests SET version = 7")
        memory.execute("DELETE FROM seals")  # as if a manifest had said so
    agent.start()
    agent.feed(4, first=4)
    until(lambda: "event=version_outdated" in agent.log(), "an update from version 7 was refused")
    agent.feed(8, first=8)
    until(lambda: agent.status()["new_samples"]["digits"] == 8, "the samples are there")
    assert agent.log().count("event=round_spooled") == 2
    assert agent.status()["waiting_updates"] == 0


def test_damaged_sample_store_costs_its_samples_and_nothing_else(coordinator, agents) -> None:
    agent = agents("kitchen")
    agent.feed(4)
    delivered(agent, 1)
    agent.stop()  # what its write-ahead log still held would mend the file
    store = agent.folder / "state" / "samples.db"
    store.write_bytes(bytes(store.stat().st_size))
    agent.start()
    agent.feed(4, first=4)
    until(lambda: agent.log().count("event=round_spooled") == 2, "a round on new samples alone")
    assert "event=file_set_aside" in agent.log()
    assert audited(coordinator, agent).lost == 0
