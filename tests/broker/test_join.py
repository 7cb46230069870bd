"""From `setup` to an applied update, and what the broker that `setup` configures lets each account do."""

import contextlib
import io
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from broker_coordinator.admission.decisions import Message
from broker_coordinator.cli import main as coordinator_main
from broker_coordinator.configuration import load_configuration
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.journal import Journal
from edge_agent.cli import main as agent_main
from edge_agent.shell.connection.identity import Identity
from fleet_host.key_files import make_key_file, read_key_file
from fleet_protocol.broker_accounts import account_name, client_identifier, own_password
from fleet_protocol.device_invitation import DeviceInvitation, prove_invitation, read_invitation, write_invitation
from fleet_protocol.keys import SigningKey, key_id, write_verify_key
from fleet_protocol.kinds import ENROLMENT, Enrolment, encode_payload
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import MOSQUITTO, free_port
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import RestartableProcess, environment
from tests.support.waiting import DEADLINE_SECONDS, until

PATIENCE_SECONDS = "20"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS, env=environment()
    )


def program(main: Callable[[Sequence[str]], int | None], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command does, in this process: a Python of its own for each would take a second."""
    words, said, complained = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            status = main(words) or 0
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(words, status, said.getvalue(), complained.getvalue())


class RefusedError(Exception):
    """What the operator is told."""


class Mosquitto(RestartableProcess):
    """The broker, with the configuration that `setup` has written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "mosquitto.log")
        self.configuration = folder / "mosquitto-edgeflock" / "mosquitto.conf"

    def start(self) -> None:
        self._spawn([MOSQUITTO, "-c", str(self.configuration)])


class Server(CoordinatorProcess):
    """What `broker-coordinator setup --host localhost` makes, and both programs of it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        made = program(
            coordinator_main,
            "setup",
            "--host",
            "localhost",
            "--port",
            str(self.port),
            "--folder",
            folder,
            "--fleet",
            "home",
        )
        assert made.returncode == 0, made.stderr
        RestartableProcess.__init__(self, folder / "coordinator.log")
        self._said_before = 0
        self.configuration = folder / "broker-coordinator" / "coordinator.toml"
        self.database = folder / "broker-coordinator" / "coordinator.db"
        self.folder = folder
        self.key = read_key_file(self.configuration.with_name("coordinator.key"), "broker-coordinator")
        self.broker = Mosquitto(folder)

    def start_all(self) -> None:
        self.broker.start()
        self.start_serving()

    def _ask(self, noun: str, *arguments: str) -> Any:
        done = program(coordinator_main, "--config", self.configuration, noun, *arguments, "--json")
        if done.returncode:
            raise RefusedError(done.stderr)
        return json.loads(done.stdout)

    def invite(self, name: str, *options: str) -> str:
        return str(self.devices("invite", name, *options)["invitation"])

    def join(self, line: str, folder: Path, wait: str = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        return program(agent_main, "join", line, "--folder", folder, "--wait", wait)

    def admit(self, name: str) -> SigningKey:
        """Approve a device by hand; returns its key once the broker has its account."""
        key = SigningKey.generate()
        self.devices("approve", name, write_verify_key(key.verify_key))
        until(lambda: self.may_connect(self.device_login(name, key)), f"{name} has an account")
        return key

    def device_login(self, name: str, key: SigningKey, identifier: str = "") -> list[str]:
        return self.login(account_name(name, key.verify_key), key, identifier or client_identifier("home", name))

    def guest_login(self, invitation: DeviceInvitation) -> list[str]:
        account = account_name(invitation.device, invitation.key().verify_key)
        return self.login(account, invitation.key(), account)

    def login(self, account: str, key: SigningKey, identifier: str) -> list[str]:
        authority = self.configuration.with_name("ca.crt")
        return [
            *("-V", "5", "-h", "localhost", "-p", str(self.port), "--cafile", str(authority)),
            *("-u", account, "-P", own_password(key, self.key.verify_key), "-i", identifier),
        ]

    def may_connect(self, login: list[str]) -> bool:
        return "CONNACK (0)" in run("mosquitto_pub", *login, "-d", "-q", "1", "-t", "none/of/anybody", "-m", "x").stdout

    def connect(self, login: list[str]) -> paho.Client:
        """A client that runs in a thread of its own until `loop_stop`, and does not come back."""
        account, password, identifier = (login[login.index(option) + 1] for option in ("-u", "-P", "-i"))
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=identifier, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.tls_set(str(self.configuration.with_name("ca.crt")))
        client.username_pw_set(account, password)
        client.connect("localhost", self.port)
        client.loop_start()
        return client

    def may_publish(self, login: list[str], topic: str) -> bool:
        said = run("mosquitto_pub", *login, "-q", "1", "-t", topic, "-m", "forged")
        return "Not authorized" not in said.stderr and said.returncode == 0

    def may_subscribe(self, login: list[str], topic: str) -> bool:
        said = run("mosquitto_sub", *login, "-q", "1", "-t", topic, "-E", "-d").stdout
        assert "Subscribed (mid: 1)" in said, said
        return "Subscribed (mid: 1): 1\n" in said


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-"))  # pytest's own folders are closed to Mosquitto's account
    folder.chmod(0o755)
    server = Server(folder)
    server.start_all()
    yield server
    server.stop()
    server.broker.stop()
    shutil.rmtree(folder)


def up(device: str) -> str:
    return f"edgeflock/v1/home/0/{device}/up"


def down(device: str) -> str:
    return f"edgeflock/v1/home/0/{device}/down"


class JoinedAgent(AgentProcess):
    """An agent in the folder that `join` has filled."""

    def __init__(self, folder: Path, name: str) -> None:
        RestartableProcess.__init__(self, folder / "agent.log")
        self.name, self.folder = name, folder
        self.configuration, self.socket = folder / "agent.toml", folder / "samples.sock"


def test_a_fleet_from_setup_to_an_applied_update_takes_one_command_on_the_device(
    server: Server, tmp_path: Path
) -> None:
    copy_digits_bundle(tmp_path / "bundle", buffer_size=1)
    server.tasks("publish", str(tmp_path / "bundle"))
    joined = server.join(server.invite("kitchen-pi"), tmp_path / "device")
    assert joined.returncode == 0, joined.stderr
    assert {each["name"]: each["state"] for each in server.devices("list")}["kitchen-pi"] == "approved"
    agent = JoinedAgent(tmp_path / "device", "kitchen-pi")
    agent.start()
    agent.feed(40)
    until(lambda: server.tasks("list")[0]["version"] > 0, "a version with the update", seconds=DEADLINE_SECONDS)
    assert agent.stop() == 0
    again = server.join(server.invite("kitchen-pi", "--again"), tmp_path / "device")
    assert (again.returncode, "already" in again.stdout) == (0, True)


def test_a_device_speaks_and_listens_on_its_own_topics_alone_and_ends_nobody_elses_session(server: Server) -> None:
    attic, cellar = (server.device_login(name, server.admit(name)) for name in ("attic-pi", "cellar-pi"))
    assert server.may_publish(attic, up("attic-pi"))
    assert server.may_subscribe(attic, down("attic-pi"))
    assert server.may_subscribe(attic, "edgeflock/v1/home/task/+")
    for topic in (up("cellar-pi"), down("attic-pi"), down("cellar-pi"), "edgeflock/v1/home/task/digits"):
        assert not server.may_publish(attic, topic), topic
    for topic in ("#", up("attic-pi"), down("cellar-pi"), "edgeflock/v1/home/0/+/down", "$SYS/#"):
        assert not server.may_subscribe(attic, topic), topic
    for control in ("$CONTROL/dynamic-security/v1", "$CONTROL/dynamic-security/v1/response"):
        assert not server.may_publish(attic, control)
        assert not server.may_subscribe(attic, control)
    identifier = attic.index("-i") + 1
    assert server.may_connect(cellar)
    for stolen in (client_identifier("home", "cellar-pi"), "coordinator-home-0", "any"):
        assert not server.may_connect([*attic[:identifier], stolen])


def test_an_invitation_reaches_the_enrolment_of_its_own_device_alone(server: Server) -> None:
    invitation = read_invitation(server.invite("porch-pi"))
    login = server.guest_login(invitation)
    until(lambda: server.may_connect(login), "the invitation has its account")
    assert server.may_publish(login, up("porch-pi"))
    assert server.may_subscribe(login, down("porch-pi"))
    for topic in (up("attic-pi"), "edgeflock/v1/home/0/porch-pi/state", "$CONTROL/dynamic-security/v1"):
        assert not server.may_publish(login, topic), topic
    for topic in (down("attic-pi"), "edgeflock/v1/home/task/+", "edgeflock/v1/home/0/+/down", "#"):
        assert not server.may_subscribe(login, topic), topic
    server.devices("withdraw", "porch-pi")
    until(lambda: not server.may_connect(login), "a withdrawn invitation has no account")


def test_without_an_account_nobody_gets_in(server: Server) -> None:
    key = SigningKey.generate()
    assert not server.may_connect(server.device_login("kitchen-pi", key))
    assert not server.may_connect(server.login("broker-coordinator", key, "coordinator-home-0"))
    anonymous = server.device_login("kitchen-pi", key)
    del anonymous[anonymous.index("-u") : anonymous.index("-i")]
    assert not server.may_connect(anonymous)


def test_an_invitation_admits_one_device_and_a_second_one_is_shown_to_the_operator(
    server: Server, tmp_path: Path
) -> None:
    line = server.invite("shed-pi")
    assert server.join(line, tmp_path / "first").returncode == 0
    copied = server.join(line, tmp_path / "second", wait="0")
    assert copied.returncode == 2
    assert "is spent" in copied.stderr
    assert not (tmp_path / "second" / "agent.toml").exists()
    shown = next(each for each in server.devices("invitations") if each["device"] == "shed-pi")
    assert (shown["state"], shown["refused"] > 0) == ("spent", True)
    assert "bad_invitation" in server.log()


def test_an_invitation_of_another_fleet_is_told_from_one_of_this(server: Server, tmp_path: Path) -> None:
    invitation = read_invitation(server.invite("pond-pi"))
    for changed, said in (
        ({"authority": bytes(32)}, "none has the fingerprint 0000000000000000"),
        ({"coordinator_key": bytes(SigningKey.generate().verify_key)}, "the broker does not know this invitation"),
        ({"token": bytes(16)}, "the broker does not know this invitation"),
        ({"host": "127.0.0.1"}, "not valid for '127.0.0.1'.; compare the clock with the server's, and the name"),
    ):
        foreign = write_invitation(msgspec.structs.replace(invitation, **changed))
        refused = server.join(foreign, tmp_path / "device", wait="0")
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
        assert {path.name for path in (tmp_path / "device").iterdir()} <= {"agent.key", "ca.crt"}


@pytest.mark.long
def test_a_name_that_is_taken_needs_the_operators_word_to_have_another_key(server: Server, tmp_path: Path) -> None:
    old = server.admit("barn-pi")
    with pytest.raises(RefusedError, match=r"barn-pi is approved already.*--again"):
        server.invite("barn-pi")
    joined = server.join(server.invite("barn-pi", "--again"), tmp_path / "made-anew")
    assert joined.returncode == 0, joined.stderr
    until(lambda: not server.may_connect(server.device_login("barn-pi", old)), "the old key's account is gone")
    states = [each["state"] for each in server.devices("show", "barn-pi")["keys"]]
    assert sorted(states) == ["approved", "revoked"]


@pytest.mark.long
def test_a_revoked_device_is_put_off_the_broker_at_once(server: Server) -> None:
    login = server.device_login("lawn-pi", server.admit("lawn-pi"))
    listener = server.connect(login)
    ended: list[object] = []
    listener.on_disconnect = lambda *why: ended.append(why)
    until(listener.is_connected, "the device is connected")
    server.devices("revoke", "lawn-pi")
    until(lambda: ended, "the broker has ended its connection")
    listener.loop_stop()
    until(lambda: not server.may_connect(login), "it can't come back")


def test_coordinator_killed_between_commit_and_answer_admits_the_device_when_it_asks_again(
    server: Server, tmp_path: Path
) -> None:
    line = server.invite("gate-pi")
    invitation = read_invitation(line)
    until(lambda: server.may_connect(server.guest_login(invitation)), "the invitation has its account")
    server.kill()
    device = tmp_path / "device"
    device.mkdir()
    make_key_file(device / "agent.key", "edge-agent")
    commit_without_answer(server, invitation, read_key_file(device / "agent.key", "edge-agent"))
    server.start_serving()
    joined = server.join(line, device)
    assert joined.returncode == 0, joined.stderr


def commit_without_answer(server: Server, invitation: DeviceInvitation, key: SigningKey) -> None:
    """What a coordinator has done that is killed before it publishes anything."""
    configuration = load_configuration(server.configuration)
    journal = Journal.open(configuration.journal())
    keys = configuration.keys()
    coordinator = Coordinator(journal, [], MessageSigner(keys[0], "home", "0"), configuration.admission_settings(keys))
    identity = Identity("home", "0", invitation.device, key, write_verify_key(keys[0].verify_key))
    token = invitation.key()
    proof = prove_invitation(token, identity.up_topic, key.verify_key)
    enrolment = Enrolment(identity.public_key, "generic", "test", [], key_id(token.verify_key), proof)
    signed = identity.sign_control(ENROLMENT, encode_payload(enrolment))
    coordinator.handle([Message(identity.up_topic, signed)], time.monotonic())
    journal.close()


@pytest.mark.long
def test_the_broker_gets_every_account_back_after_it_has_lost_them(server: Server) -> None:
    login = server.device_login("well-pi", server.admit("well-pi"))
    rules = server.folder / "mosquitto-state" / "dynamic-security.json"
    server.broker.kill()
    rules.unlink()
    made = program(
        coordinator_main, "setup", "--host", "localhost", "--port", str(server.port), "--folder", server.folder
    )
    assert made.returncode == 0, made.stderr
    server.broker.start()
    until(lambda: server.may_connect(login), "the device has its account again")
