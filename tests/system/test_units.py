"""systemd takes our units without complaint; a real Mosquitto with our configuration keeps devices apart, and leaves
one that is there already alone."""

import contextlib
import getpass
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_coordinator.commands.broker_setup import BrokerPlan
from broker_coordinator.distribution.dynamic_security import COMMANDS, BrokerAccount, change_accounts, list_accounts
from fleet_protocol.limits import MAX_NAME_CHARACTERS, MAX_UPDATE_BYTES
from tests.support.broker import free_port
from tests.support.waiting import DEADLINE_SECONDS

SYSTEMD = Path(__file__).parents[2] / "systemd"
EXPOSURE_TIMES_TEN = {
    "edge-agent.service": 11,
    "edge-agent-worker@.service": 3,
    "edgeflock-helper.service": 12,  # its processes lower their own priority
    "broker-coordinator.service": 11,
    "broker-coordinator@.service": 11,
    "mosquitto-edgeflock.service": 11,
}
UNITS = (*EXPOSURE_TIMES_TEN, "edge-agent-worker.socket")
BROKER_ACCOUNT = "mosquitto"
"""Made by Debian's package."""
FIRST_WITH_RESTART_STEPS = 254
KEYS_SINCE_254 = {"RestartSteps", "RestartMaxDelaySec"}

COORDINATOR, DEVICE, INTRUDER = "broker-coordinator", "kitchen-pi", "attic-pi"


def run(*command: str | Path, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    text = given.decode() if given is not None else None
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)


def topic(device: str, leaf: str) -> str:
    return f"edgeflock/v1/home/0/{device}/{leaf}"


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line_of_the_unit(unit: str, tmp_path: Path) -> None:
    for command in ("edge-agent", "edgeflock-helper", "broker-coordinator", "python"):
        (tmp_path / command).symlink_to("/bin/true")
    for each in UNITS:
        (tmp_path / each).write_text((SYSTEMD / each).read_text().replace("/opt/edgeflock/bin", str(tmp_path)))
    verified = run("systemd-analyze", "verify", "--man=no", tmp_path / unit)
    version = int(run("systemd-analyze", "--version").stdout.split()[1])
    unknown = set(re.findall(r"Unknown key(?: name)? '(\w+)'", verified.stderr))
    complaints = [line for line in verified.stderr.splitlines() if "Unknown key" not in line]
    assert (verified.returncode, complaints) == (0, [])
    assert unknown <= (set() if version >= FIRST_WITH_RESTART_STEPS else KEYS_SINCE_254)


@pytest.mark.parametrize("unit", EXPOSURE_TIMES_TEN)
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


def test_a_shard_is_as_confined_as_a_coordinator() -> None:
    whole, of_shard = (_lines(f"broker-coordinator{each}.service") for each in ("", "@"))
    assert {line.split("=")[0] for line in whole - of_shard} == {"Description", "ExecStart"}
    assert {line.split("=")[0] for line in of_shard - whole} == {"Description", "ExecStart", "Conflicts"}


def _lines(unit: str) -> set[str]:
    return {line for line in (SYSTEMD / unit).read_text().splitlines() if not line.startswith("#")}


def test_the_accounts_that_the_units_name_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = run("systemd-sysusers", f"--root={tmp_path}", *SYSTEMD.glob("*.sysusers.conf"))
    assert made.returncode == 0, made.stderr
    users = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()} | {BROKER_ACCOUNT}
    groups = {line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()} | {BROKER_ACCOUNT}
    for unit in UNITS:
        text = (SYSTEMD / unit).read_text()
        assert set(re.findall(r"^(?:Socket)?User=(.*)$", text, re.MULTILINE)) <= users
        assert set(re.findall(r"^Group=(.*)$", text, re.MULTILINE)) <= groups


@dataclass(frozen=True, slots=True)
class Broker:
    """A running Mosquitto that knows the coordinator and two devices."""

    port: int
    folder: Path

    def login(self, name: str, password: str = "") -> list[str]:
        authority = self.folder / "edgeflock-authority" / "ca.crt"
        known = (self.folder / "coordinator" / "broker.password").read_text().strip() if name == COORDINATOR else name
        return [
            *("-h", "localhost", "-p", str(self.port), "--cafile", str(authority)),
            *("-u", name, "-P", password or known),
        ]

    def admit(self, *names: str) -> None:
        """Make accounts, as the coordinator does; the name is the password."""
        accounts = [BrokerAccount(name, name, name, name, True) for name in names]
        self.publish(COORDINATOR, COMMANDS, "-s", given=list_accounts("g"))
        made = self.publish(COORDINATOR, COMMANDS, "-s", given=change_accounts("g", "home", "0", accounts, []))
        assert made.returncode == 0, made.stderr
        assert self.publish(names[-1], topic(names[-1], "up"), "-i", names[-1], "-m", "here").returncode == 0

    def publish(
        self, name: str, where: str, *what: str, given: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One QoS 1 message; returns after its acknowledgement."""
        message = ("-i", name, "-q", "1", "-t", where, *(what or ("-m", "sent")))
        return run("mosquitto_pub", *self.login(name), *message, given=given)

    def subscribe(self, name: str, topic_filter: str) -> None:
        """Open a durable session that collects from now on."""
        session = ("-c", "-i", name, "-q", "1", "-t", topic_filter)
        subscribed = run("mosquitto_sub", *self.login(name), *session, "-E")
        assert subscribed.returncode == 0, subscribed.stderr

    def collect(self, name: str, topic_filter: str) -> str:
        """The topic and payload of the first message that the durable session holds."""
        session = ("-c", "-i", name, "-q", "1", "-t", topic_filter)
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


@contextlib.contextmanager
def mosquitto(configuration: Path, port: int) -> Iterator[None]:
    """A Mosquitto that runs and listens; SIGTERM ends it."""
    log = configuration.with_suffix(".log")
    with log.open("a") as writer:
        process = subprocess.Popen(["mosquitto", "-c", configuration], stderr=writer)
    try:
        attempts = (is_open(port) for _ in range(1000))
        assert any(found and process.poll() is None for found in attempts), log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        time.sleep(0.01)
        return False
    return True


@pytest.fixture
def broker(certificates: Path, tmp_path: Path) -> Iterator[Broker]:
    """Ours, installed in a folder of its own."""
    port = free_port()
    shutil.copytree(certificates, tmp_path / "edgeflock-authority")
    folder, authority = tmp_path / "mosquitto-edgeflock", tmp_path / "edgeflock-authority"
    plan = BrokerPlan("localhost", port, folder, tmp_path / "mosquitto-state", authority, None)
    plan.check()
    for step in plan.steps(tmp_path / "coordinator" / "broker.password"):
        if step.do is not None:
            step.do()
    # systemd starts it as an account without privileges; what is started as root takes this one's.
    plan.configuration.chmod(0o600)
    with plan.configuration.open("a") as file:
        file.write(f"user {getpass.getuser()}\n")
    with mosquitto(plan.configuration, port):
        broker = Broker(port, tmp_path)
        broker.admit(DEVICE, INTRUDER)
        yield broker


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A Mosquitto as somebody had it before: Debian's layout, a listener with passwords and an access list."""

    folder: Path
    port: int

    def login(self, user: str) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-u", user, "-P", f"{user}-password"]

    def serves_its_clients_as_ever(self) -> bool:
        """Whether a lamp still hears its own topic and no other's, and nobody comes in without a password."""
        for where, what in (("home/door", "secret"), ("home/lamp", "on")):
            message = ("-q", "1", "-r", "-t", where, "-m", what)
            assert run("mosquitto_pub", *self.login("owner"), *message).returncode == 0
        heard = run("mosquitto_sub", *self.login("lamp"), "-t", "home/#", "-C", "1", "-W", "5", "-F", "%t %p").stdout
        without = ("-h", "127.0.0.1", "-p", str(self.port), "-t", "home/lamp", "-m", "off")
        return heard == "home/lamp on\n" and run("mosquitto_pub", *without).returncode != 0


@pytest.fixture
def neighbour(tmp_path: Path) -> Neighbour:
    folder, port = tmp_path / "mosquitto", free_port()
    (folder / "conf.d").mkdir(parents=True)
    (folder / "mosquitto.conf").write_text(
        f"persistence true\npersistence_location {folder}/\nlog_dest stderr\nuser {getpass.getuser()}\n"
        f"include_dir {folder}/conf.d\n"
    )
    (folder / "conf.d" / "house.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/acl\n"
    )
    (folder / "acl").write_text("user owner\ntopic home/#\nuser lamp\ntopic read home/lamp\n")
    for first, user in enumerate(("owner", "lamp")):
        new_file = ("-c",) if not first else ()
        run("mosquitto_passwd", *new_file, "-b", folder / "passwords", user, f"{user}-password")
    return Neighbour(folder, port)


def test_mosquitto_that_is_there_already_serves_its_clients_before_and_after(neighbour, request) -> None:
    with mosquitto(neighbour.folder / "mosquitto.conf", neighbour.port):
        assert neighbour.serves_its_clients_as_ever()
        ours = request.getfixturevalue("broker")
        assert neighbour.serves_its_clients_as_ever()
    with mosquitto(neighbour.folder / "mosquitto.conf", neighbour.port):
        assert neighbour.serves_its_clients_as_ever()
        ours.subscribe(COORDINATOR, topic(DEVICE, "up"))
        ours.publish(DEVICE, topic(DEVICE, "up"))
        assert ours.collect(COORDINATOR, topic(DEVICE, "up")) == f"{topic(DEVICE, 'up')} sent"
    assert ours.publish(DEVICE, topic(DEVICE, "up")).returncode == 0


@pytest.mark.parametrize(
    ("sender", "where", "reader"),
    [
        (DEVICE, topic(DEVICE, "up"), COORDINATOR),
        (DEVICE, topic(DEVICE, "state"), COORDINATOR),
        (COORDINATOR, topic(DEVICE, "down"), DEVICE),
        (COORDINATOR, "edgeflock/v1/home/task/digits", DEVICE),
        (COORDINATOR, f"edgeflock/v1/home/key/{'0' * 16}", DEVICE),
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


@pytest.mark.parametrize("name", ["", "a+b", "Kitchen", "x" * (MAX_NAME_CHARACTERS + 1), "a/b"])
def test_no_certificate_is_made_for_a_name_that_cannot_stand_in_a_topic(certificates: Path, name: str) -> None:
    refused = run(SYSTEMD / "mosquitto" / "certificates.sh", "client", certificates, name)
    assert refused.returncode == 1
    assert "1 to 48 characters" in refused.stderr


def test_the_authority_is_never_made_again_by_mistake(certificates: Path) -> None:
    refused = run(SYSTEMD / "mosquitto" / "certificates.sh", "authority", certificates)
    assert refused.returncode == 1
    assert "not replaced" in refused.stderr


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("broker.example", "DNS:broker.example"),
        ("192.0.2.7", "IP Address:192.0.2.7"),
        ("2001:db8::7", "IP Address:2001:DB8:0:0:0:0:0:7"),
        ("a" * 60 + ".example", "DNS:" + "a" * 60 + ".example"),
    ],
)
def test_certificate_of_the_broker_is_for_the_name_or_address_that_devices_connect_to(
    certificates: Path, tmp_path: Path, host: str, name: str
) -> None:
    for file in ("ca.crt", "ca.key"):
        shutil.copy(certificates / file, tmp_path)
    made = run(SYSTEMD / "mosquitto" / "certificates.sh", "broker", tmp_path, host)
    assert made.returncode == 0, made.stderr
    assert name in run("openssl", "x509", "-in", tmp_path / "broker.crt", "-noout", "-ext", "subjectAltName").stdout


@pytest.mark.parametrize("host", ["", "bro ker", "broker.example:8883", "mqtts://broker.example", "[2001:db8::7]"])
def test_server_with_a_wrong_host_is_refused_before_anything_is_made(tmp_path: Path, host: str) -> None:
    refused = run(SYSTEMD / "mosquitto" / "certificates.sh", "server", tmp_path / "fleet", host)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"host '{host}' must be a name such as broker.example, or an IP address" in refused.stderr
    assert not (tmp_path / "fleet").exists()


def test_certificate_without_the_authority_is_refused_with_words_and_leaves_nothing(tmp_path: Path) -> None:
    script = SYSTEMD / "mosquitto" / "certificates.sh"
    refused = run(script, "client", tmp_path, DEVICE)
    assert refused.returncode == 1
    assert f"{tmp_path}/ca.key: missing; name the folder" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert "no folder of a fleet's certificates" in run(script, "client", tmp_path / "none", DEVICE).stderr


def test_what_openssl_says_of_a_damaged_authority_is_shown(certificates: Path, tmp_path: Path) -> None:
    shutil.copy(certificates / "ca.crt", tmp_path)
    (tmp_path / "ca.key").write_text("damaged")
    refused = run(SYSTEMD / "mosquitto" / "certificates.sh", "client", tmp_path, DEVICE)
    assert refused.returncode == 1
    assert "openssl x509:" in refused.stderr
    assert "ca.key" in refused.stderr


def test_the_largest_update_passes_and_a_larger_packet_does_not(broker: Broker, tmp_path: Path) -> None:
    where = topic(DEVICE, "up")
    largest, larger = tmp_path / "largest", tmp_path / "larger"
    largest.write_bytes(b"u" * MAX_UPDATE_BYTES)
    larger.write_bytes(b"u" * (MAX_UPDATE_BYTES + 8192))
    broker.subscribe(COORDINATOR, where)
    broker.publish(DEVICE, where, "-f", str(larger))
    broker.publish(DEVICE, where, "-f", str(largest))
    assert broker.collect(COORDINATOR, where) == f"{where} {'u' * MAX_UPDATE_BYTES}"


def test_one_command_makes_what_a_new_fleets_server_needs(tmp_path: Path) -> None:
    made = run(SYSTEMD / "mosquitto" / "certificates.sh", "server", tmp_path / "fleet", "broker.example")
    assert made.returncode == 0, made.stderr
    names = {path.name for path in (tmp_path / "fleet").iterdir()}
    assert {"ca.crt", "broker.crt", "broker.key", f"{COORDINATOR}.crt", f"{COORDINATOR}.key"} <= names
