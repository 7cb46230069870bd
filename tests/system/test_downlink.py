"""The shipped agent follows a coordinator by differences and can encrypt its updates, over a real Mosquitto."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet_host.key_files import read_key_file
from fleet_protocol.codec import inspect_update
from fleet_protocol.encryption import decrypt_payload
from fleet_protocol.envelope import read_envelope
from fleet_protocol.kinds import ENCRYPTED_UPDATE, UPDATE, Update, decode_payload
from fleet_protocol.limits import MAX_UPDATE_BYTES
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until
from tests.support.wiretap import Wiretap


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    """Makes a version of every update."""
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def start(tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess) -> Iterator[Callable[..., AgentProcess]]:
    agents: list[AgentProcess] = []

    def start_one(name: str, **options: object) -> AgentProcess:
        agent = AgentProcess(tmp_path / name, name, broker, coordinator.public_key, **options)
        agents.append(agent)
        agent.start()
        return agent

    yield start_one
    for agent in agents:
        agent.kill()


@pytest.fixture
def wiretap(broker: Broker) -> Iterator[Wiretap]:
    wiretap = Wiretap(broker)
    yield wiretap
    wiretap.close()


def train(agent: AgentProcess, rounds: int, wiretap: Wiretap) -> None:
    """So many rounds, each from the version that the one before made."""
    for _ in range(rounds):
        known = wiretap.announced()
        done = agent.status()["accepted_updates"]
        agent.feed(4)
        until(lambda done=done: agent.status()["accepted_updates"] > done, f"an update of {agent.name} is accepted")
        until(lambda known=known: wiretap.announced() > known, "its version is announced")


def base_versions(coordinator: CoordinatorProcess, device: str) -> list[int]:
    with coordinator.journal() as journal:
        return [row.base_version for row in journal.updates("digits") if row.device == device]


def whole_weights(coordinator: CoordinatorProcess) -> set[str]:
    """Topics' middle parts under which a version after the first would travel whole."""
    with coordinator.journal() as journal:
        return {f"/blob/{version.weights_hash}/" for version in journal.versions("digits", after=0)}


def fetched_whole(wiretap: Wiretap, coordinator: CoordinatorProcess) -> int:
    return sum(len(wiretap.under(part)) for part in whole_weights(coordinator))


@pytest.mark.parametrize(("protocol", "versions"), [("5", 12), ("3.1.1", 3)])
def test_agent_that_was_away_catches_up_by_one_difference(coordinator, start, wiretap, protocol, versions) -> None:
    away, busy = start("away", protocol=protocol), start("busy", protocol=protocol)
    train(away, 1, wiretap)
    assert away.stop() == 0
    train(busy, versions, wiretap)
    away.start()
    until(lambda: away.status()["versions"].get("digits", 0) > versions, "the manifest came")
    train(away, 1, wiretap)
    assert base_versions(coordinator, "away")[-1] > versions
    assert fetched_whole(wiretap, coordinator) == 0
    caught_up = wiretap.under(f"/weights/digits/{base_versions(coordinator, 'away')[-1]}/0/")
    assert len(caught_up) == 1


def test_agent_that_lost_everything_gets_the_version_packed_from_nothing(coordinator, start, wiretap) -> None:
    agent = start("kitchen")
    train(agent, 3, wiretap)
    agent.stop()
    agent.wipe()
    agent.start()
    until(lambda: agent.status()["versions"].get("digits", 0) >= 3, "the manifest came")
    train(agent, 1, wiretap)
    assert wiretap.under("/whole/")
    assert fetched_whole(wiretap, coordinator) == 0


def test_damaged_base_is_reported_and_the_whole_weights_are_fetched(coordinator, start, wiretap) -> None:
    agent = start("kitchen")
    train(agent, 2, wiretap)
    agent.stop()
    held = max((agent.folder / "state" / "blobs").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    content = bytearray(held.read_bytes())
    content[-1] ^= 0x40  # an exponent: less than half a step would be rounded away
    held.write_bytes(content)
    agent.start()
    until(lambda: agent.status()["versions"].get("digits", 0) == 2, "the manifest is known")
    train(agent, 2, wiretap)
    assert agent.log().count("event=difference_refused") == 1
    assert fetched_whole(wiretap, coordinator) == 1
    assert base_versions(coordinator, "kitchen") == [0, 1, 2, 3]


def test_nothing_of_an_encrypted_update_is_readable_on_the_wire_and_the_flock_learns(
    tmp_path, coordinator, start, wiretap
) -> None:
    agent = start("kitchen", encrypt=True)
    train(agent, 3, wiretap)
    signed = [
        data
        for topic, data in wiretap.received
        if topic.endswith("/up") and read_envelope(data, MAX_UPDATE_BYTES).header.kind is ENCRYPTED_UPDATE
    ]
    assert len(signed) == 3
    kinds = {
        read_envelope(data, MAX_UPDATE_BYTES).header.kind for topic, data in wiretap.received if topic.endswith("/up")
    }
    assert UPDATE not in kinds
    key_file = tmp_path / "coordinator" / "coordinator.key"
    key = read_key_file(key_file, "broker-coordinator")
    description = copy_digits_bundle(tmp_path / "again", buffer_size=1).description
    for data in signed:
        update = decode_payload(decrypt_payload(read_envelope(data, MAX_UPDATE_BYTES), (key,)), Update)
        inspect_update(update.packed, description.shapes)
        assert all(update.packed[at : at + 8] not in data for at in range(0, len(update.packed) - 8))
    with coordinator.journal() as journal:
        assert journal.newest_version("digits").number == 3
