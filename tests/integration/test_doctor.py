"""`edge-agent doctor`: each thing that lacks is one line that says what to do, and hides no other."""

import os
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_agent.cli import main
from edge_agent.configuration import load_configuration
from edge_agent.core.gossip.status import GossipStatus, NeighbourStatus
from edge_agent.core.lifecycle import State
from edge_agent.core.round_decisions import TaskState
from edge_agent.profiles import Board
from edge_agent.sources.unix_socket import Status
from edge_agent.verbs import doctor
from fleet_protocol.keys import SigningKey, write_signing_key, write_verify_key

CONFIGURATION = """\
fleet = "home"
device = "kitchen"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
state_folder = "state"
sample_socket = "samples.sock"

[broker]
host = "127.0.0.1"
port = {port}

[guards]
{guards}

[[tasks]]
name = "digits"
"""
HEALTHY = Status(
    device="kitchen",
    state="sleeping",
    connected=True,
    boot=1,
    versions={},
    samples={},
    new_samples={},
    waiting_updates=0,
    accepted_updates=0,
    rejected_updates=0,
    withheld_updates=0,
    progress=None,
    tasks={"digits": TaskState(State.SLEEPING, "the agent has started", "32 more new samples")},
    sources=[],
)


@contextmanager
def answering(family: socket.AddressFamily, address: object, answer: bytes):
    """Somebody who takes each connection, reads a little where there is something to answer, and answers."""
    with socket.socket(family) as listening:
        listening.bind(address)
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    if answer:
                        connection.recv(100)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listening
        listening.shutdown(socket.SHUT_RDWR)


class Device:
    """A configured device. `port` is the broker's, `status` what its running agent says, None where none runs."""

    def __init__(self, folder: Path, port: int, guards: str = "") -> None:
        self.folder = folder
        key = SigningKey.generate()
        self.public_key = write_verify_key(key.verify_key)
        (folder / "device.key").touch(mode=0o600)
        (folder / "device.key").write_text(write_signing_key(key))
        self.file = folder / "agent.toml"
        self.file.write_text(CONFIGURATION.format(coordinator_key=self.public_key, port=port, guards=guards))

    def findings(self, status: Status | None = HEALTHY) -> dict[str, doctor.Finding]:
        configuration = load_configuration(self.file)
        if status is None:
            return {found.check: found for found in doctor.examine(configuration, "edge-agent")}
        answer = msgspec.json.encode(status) + b"\n"
        with answering(socket.AF_UNIX, str(configuration.sample_socket), answer):
            return {found.check: found for found in doctor.examine(configuration, "edge-agent")}


@pytest.fixture
def port():
    with answering(socket.AF_INET, ("127.0.0.1", 0), b"") as listening:
        yield listening.getsockname()[1]


@pytest.fixture(autouse=True)
def libraries_are_loaded_at_once(monkeypatch):
    monkeypatch.setattr(doctor, "LOAD_LIBRARIES", (sys.executable, "-c", ""))


def test_device_that_lacks_nothing_is_well(tmp_path, port):
    device = Device(tmp_path, port)
    findings = device.findings()
    assert [str(found) for found in findings.values() if not found.is_well] == []
    assert list(findings) == list(doctor.CHECKS)
    assert device.public_key in findings["key"].words


@pytest.mark.parametrize(
    ("gossip", "is_well", "words"),
    [
        ({}, True, "no task whose bundle is here is learned among neighbours"),
        ({"digits": GossipStatus(3, 8, 5, 4, {}, {}, "not in the roster")}, False, "digits: not in the roster"),
        (
            {"digits": GossipStatus(3, 8, 5, 4, {"barn": NeighbourStatus(None, None, None)}, {})},
            True,
            "digits: neighbours: 1, by roster 3 of 8",
        ),
    ],
)
def test_device_that_has_no_part_among_neighbours_is_told_why(tmp_path, port, gossip, is_well, words):
    found = Device(tmp_path, port).findings(msgspec.structs.replace(HEALTHY, gossip=gossip))["neighbours"]
    assert found.is_well is is_well
    assert found.words.startswith(words)


def test_everything_that_lacks_is_said_at_once_and_the_command_ends_with_one(tmp_path, port, monkeypatch, capsys):
    device = Device(tmp_path, port, guards='battery = "none"\nminimum_battery_percent = 20')
    device.folder.joinpath("device.key").unlink()
    monkeypatch.setattr(doctor, "LEAST_FREE_MIB", 1e12)
    monkeypatch.setattr(doctor, "LOAD_LIBRARIES", (sys.executable, "-c", "import no_such_library"))
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(device.file), "doctor"])
    assert ended.value.code == 1
    problems = {line.split(": ")[0]: line for line in capsys.readouterr().out.splitlines() if "PROBLEM" in line}
    for check, words in {
        "key": "edge-agent keygen",
        "disk": "make room",
        "coordinator": "start the agent: systemctl",
        "training": "no_such_library",
        "guards": "no battery none",
    }.items():
        assert words in problems[f"PROBLEM {check}"]
    assert len(problems) == 5


def test_clock_before_the_key_was_made_is_a_problem(tmp_path, port):
    device = Device(tmp_path, port)
    later = time.time() + 1e6
    os.utime(tmp_path / "device.key", (later, later))
    assert "network's time" in device.findings()["clock"].words


def test_broker_that_is_away_is_named(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = Device(tmp_path, unused.getsockname()[1]).findings()["broker"]
    assert not found.is_well
    assert "refused; check broker.host and port" in found.words


@pytest.mark.parametrize(("days", "is_well"), [(30, True), (13, False), (-1, False)])
def test_certificate_that_ends_soon_is_a_problem(days, is_well):
    class Secured:
        def getpeercert(self) -> dict[str, str]:
            ends = time.gmtime(time.time() + days * doctor.DAY_SECONDS + 60)
            return {"notAfter": time.strftime("%b %d %H:%M:%S %Y GMT", ends)}

    if is_well:
        assert "valid for 30 days" in doctor._validity(Secured())
    else:
        with pytest.raises(doctor.ProblemError, match="renew it"):
            doctor._validity(Secured())


def test_broker_of_another_authority_is_told_from_one_that_is_away(tmp_path, port, monkeypatch):
    class Context:
        def wrap_socket(self, _connection: socket.socket, *, server_hostname: str) -> None:
            error = ssl.SSLCertVerificationError(f"{server_hostname}")
            error.verify_message = "self-signed certificate"
            raise error

    device = Device(tmp_path, port)
    monkeypatch.setattr("fleet_host.broker_settings.BrokerSettings.tls_context", lambda _: Context())
    found = device.findings()["broker"]
    assert "self-signed certificate; compare broker.host, broker.tls.authority" in found.words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"connected": False}, "not connected to the broker; see its log"),
        (
            {"tasks": {"digits": TaskState(State.UNENROLLED, "not enrolled: unknown_key", "")}},
            "devices approve kitchen",
        ),
    ],
)
def test_coordinator_that_does_not_take_the_device_is_a_problem_with_its_remedy(tmp_path, port, changes, words):
    found = Device(tmp_path, port).findings(msgspec.structs.replace(HEALTHY, **changes))["coordinator"]
    assert not found.is_well
    assert words in found.words


def test_key_that_the_device_has_followed_is_said_with_the_line_to_write(tmp_path, port):
    found = Device(tmp_path, port).findings(msgspec.structs.replace(HEALTHY, coordinator_key="ab" * 32))["coordinator"]
    assert found.is_well
    assert f'write coordinator_key = "{"ab" * 32}" there' in found.words


def test_profile_that_is_for_a_larger_machine_is_a_problem_with_its_remedy(tmp_path, port, monkeypatch):
    monkeypatch.setattr(doctor, "this_board", lambda: Board("", "aarch64", 1, 300.0))
    device = Device(tmp_path, port)
    device.file.write_text(f'profile = "pi-4-2gb"\n{device.file.read_text()}')
    found = device.findings()["profile"]
    assert not found.is_well
    assert "worker.memory_limit_mib = 768, but this machine has 300 MiB; lower it" in found.words
    assert "pi-4-2gb is for a device with 2048 MiB, this machine has 300; choose a smaller one" in found.words
