"""The broker's authority is replaced under a fleet that goes on: shipped programs, a real Mosquitto."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_coordinator.cli import main as coordinator_main
from edge_agent.shell.connection.pinned_authorities import FILE
from fleet_host.certificates import read_authorities
from tests.support.in_process import program
from tests.support.managed_server import JoinedAgent, Server, running_server
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def change(server: Server, verb: str) -> None:
    done = program(coordinator_main, "authority", verb, "--folder", server.folder)
    assert done.returncode == 0, done.stderr
    server.stop()
    if verb == "switch":
        server.broker.stop()
        server.broker.start()
    server.start_serving()


@pytest.mark.long
def test_devices_follow_to_another_authority_and_an_invitation_names_the_new_one(
    server: Server, tmp_path: Path
) -> None:
    assert server.join(server.invite("kitchen-pi"), tmp_path / "device").returncode == 0
    agent = JoinedAgent(tmp_path / "device", "kitchen-pi")
    agent.start()
    until(lambda: "event=enrolled" in agent.log(), "it takes part")
    (first,) = read_authorities(tmp_path / "device" / "ca.crt")
    change(server, "renew")
    until(lambda: agent.log().count("event=authorities_followed") == 1, "it believes both")
    connections = agent.log().count("event=broker_connected")
    change(server, "switch")
    until(lambda: agent.log().count("event=broker_connected") > connections, "it believes the new certificate")
    change(server, "drop")
    until(lambda: agent.log().count("event=authorities_followed") == 2, "it believes the new authority alone")
    believed = read_authorities(tmp_path / "device" / "state" / FILE)
    assert (len(believed), first in believed) == (1, False)
    assert agent.stop() == 0
    before = len(agent.log())
    agent.start()
    until(lambda: "event=broker_connected" in agent.log()[before:], "after a restart too")
    assert agent.stop() == 0
    joined = server.join(server.invite("attic-pi"), tmp_path / "second")
    assert joined.returncode == 0, joined.stderr
    assert read_authorities(tmp_path / "second" / "ca.crt") == believed
