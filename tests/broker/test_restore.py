"""A coordinator that is put back to yesterday's backup, beside a broker that has gone on: shipped programs all."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_coordinator.cli import main as coordinator_main
from fleet_protocol.device_invitation import read_invitation
from tests.support.in_process import program
from tests.support.managed_server import JoinedAgent, Server, running_server
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def states(server: Server) -> dict[str, str]:
    return {each["name"]: each["state"] for each in server.devices("list")}


def note(server: Server, name: str) -> str:
    return next(each["note"] for each in server.devices("list") if each["name"] == name)


def test_who_joined_since_the_backup_is_not_lost_and_who_was_revoked_does_not_come_back(
    server: Server, tmp_path: Path
) -> None:
    stays, leaves = server.admit("attic-pi"), server.admit("lawn-pi")
    line = server.invite("shed-pi")
    backup = str(tmp_path / "backup.tar")
    where = ("--folder", str(server.folder))
    assert program(coordinator_main, "backup", backup, *where).returncode == 0, "while it runs"
    joined = server.join(line, tmp_path / "device")
    assert joined.returncode == 0, joined.stderr
    server.devices("revoke", "lawn-pi")
    gone = server.device_login("lawn-pi", leaves)
    until(lambda: not server.may_connect(gone), "it is revoked at the broker")
    server.stop()
    for file in server.database.parent.glob("coordinator.db*"):
        file.unlink()
    restored = program(coordinator_main, "restore", backup, *where)
    assert restored.returncode == 0, restored.stderr
    assert "the invitations of shed-pi" in restored.stdout

    server.start_serving()
    until(lambda: "event=devices_held_back" in server.log(), "the broker's accounts are compared")
    assert states(server) == {"attic-pi": "approved", "lawn-pi": "pending"}
    assert server.may_connect(server.device_login("attic-pi", stays))
    until(lambda: not server.may_connect(server.guest_login(read_invitation(line))), "nobody can use it twice")
    assert not server.may_connect(gone)
    assert "event=accounts_not_in_database" in server.log()
    agent = JoinedAgent(tmp_path / "device", "shed-pi")
    agent.start()
    until(lambda: states(server).get("shed-pi") == "pending", "it is connected, and waits for an operator")
    (shed,) = [each for each in server.devices("list") if each["name"] == "shed-pi"]
    until(lambda: all("took part before" in note(server, name) for name in ("shed-pi", "lawn-pi")), "both are noted")
    assert note(server, "attic-pi") == ""
    server.devices("approve", "shed-pi", shed["key_id"])
    until(lambda: "event=enrolled" in agent.log(), "it takes part again, without a visit")
    assert agent.stop() == 0
    server.stop()
    server.start_serving()
    until(lambda: server.log().count("broker_connected") >= 3, "it serves again")
    assert states(server)["lawn-pi"] == "pending", "nothing is decided a second time"
    server.devices("approve", "lawn-pi", next(e["key_id"] for e in server.devices("list") if e["name"] == "lawn-pi"))
    until(lambda: server.may_connect(gone), "an operator's word lets it in again, with its old password")


@pytest.mark.long
def test_a_fleet_goes_on_where_its_server_was_moved(server: Server, tmp_path: Path) -> None:
    assert server.join(server.invite("kitchen-pi"), tmp_path / "device").returncode == 0
    line = server.invite("porch-pi")
    server.stop()
    server.broker.stop()
    backup, where = str(tmp_path / "move.tar"), ("--folder", str(server.folder))
    assert program(coordinator_main, "backup", backup, *where).returncode == 0
    for folder in [path for path in server.folder.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    assert program(coordinator_main, "restore", "--moving", backup, *where).returncode == 0
    setup = ("setup", "--host", "localhost", "--port", str(server.port), *where)
    done = program(coordinator_main, *setup)
    assert done.returncode == 0, done.stderr
    server.start_all()
    agent = JoinedAgent(tmp_path / "device", "kitchen-pi")
    agent.start()
    until(lambda: "event=enrolled" in agent.log(), "its account is made again, its password and authority still count")
    assert agent.stop() == 0
    joined = server.join(line, tmp_path / "porch")
    assert joined.returncode == 0, joined.stderr


@pytest.mark.long
def test_an_invitation_from_before_a_rotation_still_lets_its_device_join(server: Server, tmp_path: Path) -> None:
    line, unused = server.invite("kitchen-pi"), server.invite("porch-pi")
    until(lambda: server.may_connect(server.guest_login(read_invitation(line))), "the invitation has its account")
    server.stop()
    assert program(coordinator_main, "--config", server.configuration, "rotate-key").returncode == 0
    server.start_serving()
    joined = server.join(line, tmp_path / "device")
    assert joined.returncode == 0, joined.stderr
    agent = JoinedAgent(tmp_path / "device", "kitchen-pi")
    agent.start()
    until(lambda: "event=coordinator_key_followed" in agent.log(), "the device follows to the new key")
    until(lambda: "event=enrolled" in agent.log(), "and takes part")
    assert agent.stop() == 0
    copied = server.join(line, tmp_path / "copy", wait="0")
    assert "is spent" in copied.stderr
    keys = server.configuration.with_name("coordinator.key")
    newest = keys.read_text().splitlines()[1]
    keys.write_text(newest + "\n")
    assert read_invitation(unused).device == "porch-pi"
    shown = {each["device"]: each["state"] for each in server.devices("invitations")}
    assert shown == {"kitchen-pi": "spent", "porch-pi": "stale"}
