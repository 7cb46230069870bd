"""systemd takes our units without complaint, and a real Mosquitto with our configuration keeps devices apart."""

import getpass
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_protocol.limits import MAX_NAME_CHARACTERS, MAX_UPDATE_BYTES
from tests.support.waiting import DEADLINE_SECONDS

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = ("edge-agent.service", "broker-coordinator.service")
EXPOSURE_TIMES_TEN = {"edge-agent.service": 12, "broker-coordinator.service": 11}
FIRST_WITH_RESTART_STEPS = 254
KEYS_SINCE_254 = {"RestartSteps", "RestartMaxDelaySec"}

COORDINATOR, DEVICE, INTRUDER = "broker-coordinator", "kitchen-pi", "attic-pi"
MARKER = "marker"
"""The payload published after what must not arrive: seeing it first proves that the rest was dropped."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)


def topic(device: str, leaf: str) -> str:
    return f"edgeflock/v1/home/0/{device}/{leaf}"


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line_of_the_unit(unit: str, tmp_path: Path) -> None:
    for command in ("edge-agent", "broker-coordinator"):
        (tmp_path / command).symlink_to("/bin/true")
    text = (SYSTEMD / unit).read_text().replace("/opt/edgeflock/bin", str(tmp_path))
    (tmp_path / unit).write_text(text)
    verified = run("systemd-analyze", "verify", "--man=no", tmp_path / unit)
    version = int(run("systemd-analyze", "--version").stdout.split()[1])
    unknown = set(re.findall(r"Unknown key(?: name)? '(\w+)'", verified.stderr))
    complaints = [line for line in verified.stderr.splitlines() if "Unknown key" not in line]
    assert (verified.returncode, complaints) == (0, [])
    assert unknown == (set() if version >= FIRST_WITH_RESTART_STEPS else KEYS_SINCE_254)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_stays_as_little_exposed_as_it_is(unit: str) -> None:
    rated = run(
        "systemd-analyze",
        "security",
        "--no-pager",
        "--offline=true",
        f"--threshold={EXPOSURE_TIMES_TEN[unit]}",
        SYSTEMD / unit,
    )
    assert rated.returncode == 0, rated.stdout


def test_the_accounts_that_the_units_name_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = run("systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "edgeflock.sysusers.conf")
    assert made.returncode == 0, made.stderr
    users = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()}
    for unit in UNITS:
        text = (SYSTEMD / unit).read_text()
        assert set(re.findall(r"^User=(.*)$", text, re.MULTILINE)) <= users
        assert set(re.findall(r"^Group=(.*)$", text, re.MULTILINE)) <= groups


@dataclass(frozen=True, slots=True)
class Broker:
    """A running Mosquitto, and the certificates of those who may connect."""

    port: int
    folder: Path

    def login(self, name: str) -> list[str]:
        certificates = self.folder / "certs"
        return [
            *("-h", "localhost", "-p", str(self.port), "--cafile", str(certificates / "ca.crt")),
            *("--cert", str(certificates / f"{name}.crt"), "--key", str(certificates / f"{name}.key")),
        ]

    def publish(self, name: str, where: str, *what: str) -> subprocess.CompletedProcess[str]:
        """One QoS 1 message; returns after its acknowledgement."""
        return run("mosquitto_pub", *self.login(name), "-q", "1", "-t", where, *(what or ("-m", "sent")))

    def subscribe(self, name: str, topic_filter: str, identifier: str = "any") -> None:
        """Open a durable session that collects from now on."""
        session = ("-c", "-i", identifier, "-q", "1", "-t", topic_filter)
        subscribed = run("mosquitto_sub", *self.login(name), *session, "-E")
        assert subscribed.returncode == 0, subscribed.stderr

    def collect(self, name: str, topic_filter: str, identifier: str = "any") -> str:
        """The topic and payload of the first message that the durable session holds."""
        session = ("-c", "-i", identifier, "-q", "1", "-t", topic_filter)
        patience = ("-C", "1", "-W", "5", "-F", "%t %p")
        return run("mosquitto_sub", *self.login(name), *session, *patience).stdout.strip()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "certs"
    script = SYSTEMD / "mosquitto" / "certificates.sh"
    names = [("client", folder, name) for name in (COORDINATOR, DEVICE, INTRUDER)]
    for arguments in [("authority", folder), ("broker", folder, "localhost"), *names]:
        made = run(script, *arguments)
        assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def broker(certificates: Path, tmp_path: Path) -> Iterator[Broker]:
    shutil.copytree(certificates, tmp_path / "certs")
    shutil.copy(SYSTEMD / "mosquitto" / "edgeflock.acl", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = (SYSTEMD / "mosquitto" / "edgeflock.conf").read_text()
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "edgeflock.conf").write_text(
        ours.replace("/etc/mosquitto", str(tmp_path)).replace("listener 8883", f"listener {port} localhost")
    )
    # As Debian's /etc/mosquitto/mosquitto.conf, which includes ours.
    (tmp_path / "mosquitto.conf").write_text(
        f"pid_file {tmp_path}/mosquitto.pid\npersistence true\npersistence_location {tmp_path}/\n"
        f"log_dest stderr\nuser {getpass.getuser()}\ninclude_dir {tmp_path}/conf.d\n"
    )
    log = tmp_path / "mosquitto.log"
    with log.open("w") as writer:
        process = subprocess.Popen(["mosquitto", "-c", tmp_path / "mosquitto.conf"], stderr=writer)
    try:
        connected = ("-q", "1", "-t", topic(DEVICE, "up"), "-m", "hello")
        running = Broker(port, tmp_path)
        attempts = (run("mosquitto_pub", *running.login(DEVICE), *connected).returncode for _ in range(100))
        assert any(code == 0 and process.poll() is None for code in attempts), log.read_text()
        yield running
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


@pytest.mark.parametrize(
    ("sender", "where", "reader"),
    [
        (DEVICE, topic(DEVICE, "up"), COORDINATOR),
        (DEVICE, topic(DEVICE, "state"), COORDINATOR),
        (COORDINATOR, topic(DEVICE, "down"), DEVICE),
        (COORDINATOR, "edgeflock/v1/home/task/digits", DEVICE),
        (COORDINATOR, f"edgeflock/v1/home/blob/{'0' * 64}/0", DEVICE),
    ],
)
def test_every_topic_of_the_protocol_carries(broker: Broker, sender: str, where: str, reader: str) -> None:
    broker.subscribe(reader, where)
    broker.publish(sender, where)
    assert broker.collect(reader, where) == f"{where} sent"


def test_what_is_retained_waits_for_who_comes_later(broker: Broker) -> None:
    broker.publish(COORDINATOR, "edgeflock/v1/home/task/digits", "-r", "-m", "version 7")
    assert broker.collect(DEVICE, "edgeflock/v1/home/task/+") == "edgeflock/v1/home/task/digits version 7"


@pytest.mark.parametrize(
    ("where", "witness"),
    [
        (topic(DEVICE, "up"), COORDINATOR),
        (topic(DEVICE, "state"), COORDINATOR),
        (topic(DEVICE, "down"), DEVICE),
        ("edgeflock/v1/home/task/digits", DEVICE),
        (f"edgeflock/v1/home/blob/{'0' * 64}/0", DEVICE),
    ],
)
def test_a_device_cannot_publish_for_another_or_for_the_coordinator(broker: Broker, where: str, witness: str) -> None:
    broker.subscribe(witness, "edgeflock/#")
    broker.publish(INTRUDER, where)
    sender, marker = {
        COORDINATOR: (INTRUDER, topic(INTRUDER, "up")),
        DEVICE: (COORDINATOR, topic(DEVICE, "down")),
    }[witness]
    broker.publish(sender, marker, "-m", MARKER)
    assert broker.collect(witness, "edgeflock/#") == f"{marker} {MARKER}"


def test_a_device_cannot_read_what_others_say_or_are_told(broker: Broker) -> None:
    broker.subscribe(INTRUDER, "#")
    broker.publish(DEVICE, topic(DEVICE, "up"))
    broker.publish(DEVICE, topic(DEVICE, "state"), "-r", "-m", "online")
    broker.publish(COORDINATOR, topic(DEVICE, "down"))
    broker.publish(COORDINATOR, topic(INTRUDER, "down"), "-m", MARKER)
    assert broker.collect(INTRUDER, "#") == f"{topic(INTRUDER, 'down')} {MARKER}"


def test_a_device_cannot_take_over_a_session_by_its_client_id(broker: Broker) -> None:
    broker.subscribe(DEVICE, topic(DEVICE, "down"), DEVICE)
    broker.publish(COORDINATOR, topic(DEVICE, "down"))
    broker.subscribe(INTRUDER, topic(INTRUDER, "down"), DEVICE)
    broker.publish(COORDINATOR, topic(INTRUDER, "down"), "-m", MARKER)
    assert broker.collect(INTRUDER, topic(INTRUDER, "down"), DEVICE) == f"{topic(INTRUDER, 'down')} {MARKER}"
    assert broker.collect(DEVICE, topic(DEVICE, "down"), DEVICE) == f"{topic(DEVICE, 'down')} sent"


def test_a_certificate_with_a_wildcard_for_a_name_reads_nothing(broker: Broker) -> None:
    folder = broker.folder / "certs"
    key, request, certificate = (folder / f"+.{kind}" for kind in ("key", "csr", "crt"))
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key)
    authority = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial")
    assert run("openssl", "req", "-new", *new_key, "-subj", "/CN=+", "-out", request).returncode == 0
    assert run("openssl", "x509", "-req", "-in", request, *authority, "-out", certificate).returncode == 0
    broker.publish(COORDINATOR, topic(DEVICE, "down"), "-r", "-m", "secret")
    assert broker.collect("+", topic("+", "down")) == ""


@pytest.mark.parametrize("name", ["", "a+b", "Kitchen", "x" * (MAX_NAME_CHARACTERS + 1), "a/b"])
def test_no_certificate_is_made_for_a_name_that_cannot_stand_in_a_topic(certificates: Path, name: str) -> None:
    refused = run(SYSTEMD / "mosquitto" / "certificates.sh", "client", certificates, name)
    assert refused.returncode == 1
    assert "1 to 48 characters" in refused.stderr


def test_the_authority_is_never_made_again_by_mistake(certificates: Path) -> None:
    refused = run(SYSTEMD / "mosquitto" / "certificates.sh", "authority", certificates)
    assert refused.returncode == 1
    assert "not replaced" in refused.stderr


def test_whoever_has_no_certificate_of_this_authority_stays_outside(broker: Broker, tmp_path: Path) -> None:
    script = SYSTEMD / "mosquitto" / "certificates.sh"
    foreign = tmp_path / "foreign"
    assert run(script, "authority", foreign).returncode == 0
    assert run(script, "client", foreign, DEVICE).returncode == 0
    message = ("-q", "1", "-t", topic(DEVICE, "up"), "-m", "hello")
    address = ("-h", "localhost", "-p", str(broker.port), "--cafile", str(broker.folder / "certs" / "ca.crt"))
    stolen_name = ("--cert", str(foreign / f"{DEVICE}.crt"), "--key", str(foreign / f"{DEVICE}.key"))
    assert run("mosquitto_pub", *address, *message).returncode != 0
    assert run("mosquitto_pub", *address, *stolen_name, *message).returncode != 0
    assert run("mosquitto_pub", "-h", "localhost", "-p", str(broker.port), *message).returncode != 0


def test_the_largest_update_passes_and_a_larger_packet_does_not(broker: Broker, tmp_path: Path) -> None:
    where = topic(DEVICE, "up")
    largest, larger = tmp_path / "largest", tmp_path / "larger"
    largest.write_bytes(b"u" * MAX_UPDATE_BYTES)
    larger.write_bytes(b"u" * (MAX_UPDATE_BYTES + 8192))
    broker.subscribe(COORDINATOR, where)
    broker.publish(DEVICE, where, "-f", str(larger))
    broker.publish(DEVICE, where, "-f", str(largest))
    assert broker.collect(COORDINATOR, where) == f"{where} {'u' * MAX_UPDATE_BYTES}"
