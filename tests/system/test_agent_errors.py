"""What an operator sees of a bad configuration: one line that names the thing, and exit status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet_protocol.keys import SigningKey
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.waiting import DEADLINE_SECONDS

NOWHERE = type("Nowhere", (Broker,), {"__init__": lambda self: None, "host": "127.0.0.1", "port": 1})()


@pytest.fixture
def agent(tmp_path: Path) -> AgentProcess:
    return AgentProcess(tmp_path, "kitchen", NOWHERE, SigningKey.generate().verify_key)


def complaint(configuration: Path) -> str:
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("level=")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def replaced(agent: AgentProcess, old: str, new: str) -> Path:
    text = agent.configuration.read_text()
    assert old in text
    agent.configuration.write_text(text.replace(old, new))
    return agent.configuration


def test_missing_file_is_named(tmp_path) -> None:
    assert str(tmp_path / "none.toml") in complaint(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('device = "kitchen"', 'device = "Kitchen Pi"', "device"),
        ('device = "kitchen"', "", "device"),
        ('sample_socket = "samples.sock"', 'sample_sockets = "samples.sock"', "did you mean 'sample_socket'"),
        ("keepalive_seconds = 5", 'keepalive_seconds = "5"', "keepalive_seconds"),
        ("keepalive_seconds = 5", "keepalive_seconds = 5\ncolour = 1", "colour"),
        ("[guards]", "[guards", "not valid TOML"),
        ('name = "digits"', 'name = "digits"\n[[tasks]]\nname = "digits"', "listed twice"),
        ('coordinator_key = "', 'coordinator_key = "zz', "coordinator_key"),
        ('state_folder = "state"', 'state_folder = "/proc/state"', "state_folder"),
        ('sample_socket = "samples.sock"', f'sample_socket = "{"x" * 200}"', "sample_socket"),
        ('host = "127.0.0.1"', 'host = ""', "host"),
        ('host = "127.0.0.1"', 'host = "broker..example"', "host"),
        ('device = "kitchen"', 'device = "kitchen"\nprofile = "pi-zero"', "pi-zero-2w"),
        ('host = "127.0.0.1"', 'host = "127.0.0.1"\ntls = { authority = "none.pem" }', "none.pem"),
        ('host = "127.0.0.1"', 'host = "127.0.0.1"\nusername = "pi"\npassword_file = "none"', "password_file"),
    ],
)
def test_bad_configuration_is_one_line_that_names_the_key(agent, old, new, named) -> None:
    assert named in complaint(replaced(agent, old, new))


def test_key_file_that_others_can_read_is_refused_with_the_remedy(agent) -> None:
    (agent.folder / "device.key").chmod(0o644)
    assert "chmod 600" in complaint(agent.configuration)


def test_two_agents_can_not_share_a_state_folder(agent) -> None:
    agent.start()
    try:
        agent.configuration.write_text(agent.configuration.read_text().replace("samples.sock", "other.sock"))
        assert "state_folder" in complaint(agent.configuration)
    finally:
        agent.kill()


def test_keygen_never_overwrites(tmp_path) -> None:
    command = [sys.executable, "-m", "edge_agent.cli", "keygen", str(tmp_path / "device.key")]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(first.stdout.strip()) == 64
    key = (tmp_path / "device.key").read_text()
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert (tmp_path / "device.key").read_text() == key


def test_sample_socket_of_another_agent_is_in_use(tmp_path) -> None:
    key = SigningKey.generate().verify_key
    first, second = (AgentProcess(tmp_path / name, name, NOWHERE, key) for name in ("kitchen", "attic"))
    first.start()
    try:
        configuration = replaced(second, '"samples.sock"', f'"{first.socket}"')
        assert f"sample_socket {first.socket} is in use by another agent" in complaint(configuration)
        assert first.status()["device"] == "kitchen"
    finally:
        first.kill()
