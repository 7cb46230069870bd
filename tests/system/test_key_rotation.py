"""The coordinator's signing key is replaced, twice: devices follow it, awake or not, and nothing is lost.

The shipped programs on a real Mosquitto.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt import publish

from broker_coordinator.distribution.signed_messages import MessageSigner
from edge_agent.cli import main as edge_agent
from fleet_host.key_files import read_key_ring_file
from fleet_protocol.keys import KeyRing, SigningKey, write_verify_key
from fleet_protocol.kinds import Manifest
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.fleet import FLEET, SHARD
from tests.support.process import environment
from tests.support.waiting import until
from workbench.demo.audit import audit


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    copy_digits_bundle(tmp_path / "digits", buffer_size=4)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def make_agent(
    tmp_path: Path, broker: Broker, coordinator: CoordinatorProcess
) -> Iterator[Callable[..., AgentProcess]]:
    made: list[AgentProcess] = []

    def make(name: str, **options: bool) -> AgentProcess:
        made.append(AgentProcess(tmp_path / name, name, broker, keys(coordinator)[0].verify_key, **options))
        made[-1].start()
        return made[-1]

    yield make
    for agent in made:
        agent.kill()


def keys(coordinator: CoordinatorProcess) -> KeyRing:
    return read_key_ring_file(coordinator.configuration.parent / "coordinator.key", "broker-coordinator")


def rotate(coordinator: CoordinatorProcess) -> str:
    program = [sys.executable, "-P", "-m", coordinator.program]
    command = [*program, "rotate-key", "--config", str(coordinator.configuration)]
    return subprocess.run(command, capture_output=True, check=True, env=environment(), text=True).stdout


def follows(agent: AgentProcess, key: SigningKey) -> None:
    until(lambda: agent.status().get("coordinator_key") == write_verify_key(key.verify_key), f"{agent.name} follows")


def accepted(coordinator: CoordinatorProcess, agent: AgentProcess) -> int:
    with coordinator.journal() as journal:
        return sum(row.device == agent.name for row in journal.updates("digits"))


def is_retained(broker: Broker, topic: str) -> bool:
    """Whether somebody who subscribes now is told something at once."""
    command = ["mosquitto_sub", "-h", broker.host, "-p", str(broker.port), "-t", topic, "-C", "1", "-W", "1"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_devices_follow_a_key_that_was_replaced_twice_and_nothing_is_lost(
    coordinator, make_agent, broker, tmp_path, capsys
) -> None:
    awake, asleep = make_agent("awake", encrypt=True), make_agent("asleep")
    for agent in (awake, asleep):
        agent.feed(4)
    until(lambda: accepted(coordinator, awake) == accepted(coordinator, asleep) == 1, "both have sent an update")
    asleep.stop()
    coordinator.stop()
    awake.feed(4, first=4)
    until(lambda: awake.status()["waiting_updates"] == 1, "an update waits that is encrypted for the first key")
    (first,) = keys(coordinator)
    assert write_verify_key(keys(coordinator)[0].verify_key) not in rotate(coordinator)
    shown = rotate(coordinator)
    newest = keys(coordinator)[0]
    assert write_verify_key(newest.verify_key) in shown
    assert "systemctl restart broker-coordinator" in shown
    coordinator.start_serving()
    follows(awake, newest)
    until(lambda: accepted(coordinator, awake) == 2, "the update that waited is taken")

    for process in (coordinator, broker):
        process.stop()
    broker.wipe()
    broker.start()
    coordinator.start_serving()
    gone = MessageSigner(first, FLEET, SHARD).succession(newest.verify_key).topic
    until(lambda: is_retained(broker, gone), "the coordinator has said what follows the first key")
    publish.single(gone, b"", qos=1, retain=True, hostname=broker.host, port=broker.port)
    asleep.start()
    follows(asleep, newest)
    asleep.feed(4, first=4)
    until(lambda: accepted(coordinator, asleep) == 2, "it goes on with what followed while it slept")

    awake.kill()
    awake.start()
    follows(awake, newest)
    late = make_agent("late")
    late.feed(4)
    until(lambda: accepted(coordinator, late) == 1, "a new device starts with the newest key")
    assert "event=coordinator_key_followed" not in late.log()
    assert asleep.log().count("event=coordinator_key_followed") == 2

    forged = MessageSigner(first, FLEET, SHARD).manifest("digits", Manifest(900, "ab" * 32, "cd" * 32))
    back = MessageSigner(first, FLEET, SHARD).succession(SigningKey.generate().verify_key)
    for message in (back, forged):
        publish.single(message.topic, message.data, qos=1, retain=True, hostname=broker.host, port=broker.port)
    awake.feed(4, first=8)
    until(lambda: accepted(coordinator, awake) == 3, "it trains on, from the coordinator's own version")
    assert awake.status()["versions"]["digits"] < 900
    assert awake.status()["coordinator_key"] == write_verify_key(newest.verify_key)
    assert coordinator.tasks("verify", "digits")["equal"], "what was encrypted for an earlier key is replayed, too"
    capsys.readouterr()
    with contextlib.suppress(SystemExit):  # a machine without a sensor has a problem of its own
        edge_agent(["--config", str(awake.configuration), "doctor"])
    assert f'coordinator_key = "{write_verify_key(newest.verify_key)}"' in capsys.readouterr().out
    edge_agent(["--config", str(awake.configuration), "status"])
    assert f"coordinator key: {write_verify_key(newest.verify_key)}\n" in capsys.readouterr().out
    for agent in (awake, asleep, late):
        agent.stop()
    with coordinator.journal() as journal:
        found = audit({a.name: a.ledger() for a in (awake, asleep, late)}, list(journal.updates("digits")))
    assert (found.lost, found.duplicated) == (0, 0)
