"""`edge-agent join`, where it can't be done: one line that says what is wrong, and no agent.toml."""

from pathlib import Path

import msgspec
import pytest

from broker_coordinator.commands.certificates import authority_fingerprint, make_authority
from edge_agent.cli import main
from edge_agent.verbs import patience
from edge_agent.verbs.broker_account import account_table
from edge_agent.verbs.setup import AgentText, agent_text
from fleet_protocol.device_invitation import DeviceInvitation, write_invitation
from fleet_protocol.keys import SigningKey
from tests.support.broker import free_port

INVITATION = DeviceInvitation(
    "127.0.0.1", free_port(), b"\x01" * 32, b"\x02" * 32, "home", "0", "kitchen-pi", b"\x03" * 16, 2**33, ["digits"]
)


def refused(folder: Path, capsys, line: str = "", *options: str, **changed: object) -> str:
    """What `join` says at its end, of the invitation with some fields changed."""
    line = line or write_invitation(msgspec.structs.replace(INVITATION, **changed))
    with pytest.raises(SystemExit) as ended:
        main(["join", line, "--folder", str(folder), "--wait", "0", *options])
    assert ended.value.code == 2
    said = str(capsys.readouterr().err)
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_what_is_wrong_with_the_invitation_is_said_before_anything_is_written(tmp_path: Path, capsys) -> None:
    line = write_invitation(INVITATION)
    assert "cut off or altered" in refused(tmp_path / "new", capsys, line[:-9])
    assert "no invitation, which begins with" in refused(tmp_path / "new", capsys, "0" * 64)
    assert "counted until 2001-09-09" in refused(tmp_path / "new", capsys, expires=1_000_000_000)
    assert not (tmp_path / "new").exists()


def test_a_broker_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    said = refused(tmp_path, capsys)
    assert f"127.0.0.1:{INVITATION.port}: [Errno 111] Connection refused" in said
    assert "no-such-host.invalid:8883" in refused(tmp_path, capsys, host="no-such-host.invalid", port=8883)
    assert "without scheme, port or brackets" in refused(tmp_path, capsys, host='a"\nb')
    assert "profile nope: no such file" in refused(tmp_path, capsys, "", "--profile", "nope")
    assert len(refused(tmp_path, capsys, "", "--profile", "n" * 70_000)) < 500
    assert not (tmp_path / "agent.toml").exists()


def test_a_machine_without_the_time_waits_and_then_says_so(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(patience, "local_time", lambda: None)
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.0)
    assert "no certificate is valid then" in refused(tmp_path, capsys)


def test_a_device_that_has_not_followed_to_the_authority_of_the_invitation_is_told_how_to_join_anew(
    tmp_path: Path, capsys
) -> None:
    make_authority(tmp_path / "authority")
    authority = tmp_path / "ca.crt"
    authority.write_bytes((tmp_path / "authority" / "ca.crt").read_bytes())
    table = account_table("127.0.0.1", INVITATION.port, "kitchen-pi", SigningKey(b"\x04" * 32).verify_key)
    words = AgentText("home", "kitchen-pi", "02" * 32, table, "pi-4", [], state_folder=str(tmp_path / "state"))
    (tmp_path / "agent.toml").write_text(agent_text(words))
    said = refused(tmp_path, capsys)
    assert f"{authority} has not the authority {'01' * 8}... of the invitation" in said
    assert "to let it join anew, stop the agent and remove" in said
    named = msgspec.structs.replace(INVITATION, authority=authority_fingerprint(authority))
    main(["join", write_invitation(named), "--folder", str(tmp_path)])
    assert "already" in capsys.readouterr().out


def test_a_device_of_another_name_stays_what_it_is(tmp_path: Path, capsys) -> None:
    options = ["--device", "attic-pi", "--broker", "broker.example", "--coordinator-key", "02" * 32]
    main(["--config", str(tmp_path / "agent.toml"), "setup", *options])
    before = (tmp_path / "agent.toml").read_bytes()
    assert "this device is attic-pi of fleet home" in refused(tmp_path, capsys)
    assert (tmp_path / "agent.toml").read_bytes() == before
