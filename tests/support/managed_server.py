"""A server as `broker-coordinator setup --host` makes it: Mosquitto with its rules, coordinator, and commands."""

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from broker_coordinator.cli import main as coordinator_main
from edge_agent.cli import main as agent_main
from fleet_host.key_files import read_key_file
from fleet_protocol.broker_accounts import account_name, client_identifier, own_password
from fleet_protocol.device_invitation import DeviceInvitation
from fleet_protocol.keys import SigningKey, write_verify_key
from tests.support.agent import AgentProcess
from tests.support.broker import MOSQUITTO, free_port, security_plugin
from tests.support.coordinator import CoordinatorProcess
from tests.support.in_process import program
from tests.support.process import RestartableProcess, environment
from tests.support.waiting import DEADLINE_SECONDS, until

PATIENCE_SECONDS = "20"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS, env=environment()
    )


class RefusedError(Exception):
    """What the operator is told."""


class Mosquitto(RestartableProcess):
    """The broker, with the configuration that `setup` has written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "mosquitto.log")
        self.configuration = folder / "mosquitto-edgeflock" / "mosquitto.conf"

    def start(self) -> None:
        text = self.configuration.read_text()
        named = re.sub("^plugin .*", f"plugin {security_plugin()}", text, flags=re.MULTILINE)
        if named != text:  # of another release than setup has found
            self.configuration.unlink()
            self.configuration.write_text(named)
            self.configuration.chmod(0o444)
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

    def connect(self, login: list[str], will: str = "") -> paho.Client:
        """A client that runs in a thread of its own until `loop_stop`, and does not come back."""
        account, password, identifier = (login[login.index(option) + 1] for option in ("-u", "-P", "-i"))
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=identifier, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.tls_set(str(self.configuration.with_name("ca.crt")))
        client.username_pw_set(account, password)
        if will:
            client.will_set(will, b"will", qos=1, retain=True)
        client.connect("localhost", self.port)
        client.loop_start()
        return client

    def may_publish(self, login: list[str], topic: str) -> bool:
        said = run("mosquitto_pub", *login, "-q", "1", "-t", topic, "-m", "forged")
        return "Not authorized" not in said.stderr and said.returncode == 0

    def publish(self, login: list[str], topic: str, data: bytes) -> None:
        """Whatever it is, in the name of that account."""
        command = ["mosquitto_pub", *login, "-q", "1", "-t", topic, "-s"]
        subprocess.run(command, input=data, check=True, timeout=DEADLINE_SECONDS, env=environment())

    def refusals(self) -> int:
        """How many messages were refused so far, of any device."""
        with self.journal() as journal:
            return sum(journal.overview.rejections_of("").values())

    def may_leave_a_will(self, login: list[str], topic: str) -> bool:
        """Whether a message on `topic`, which the broker is to publish when the connection breaks, is published."""
        client = self.connect(login, will=topic)
        until(client.is_connected, "it is connected")
        client.loop_stop()
        connection = client.socket()
        assert connection is not None
        connection.close()  # without a DISCONNECT
        account, password = "broker-coordinator", self.configuration.with_name("broker.password").read_text().strip()
        observer = [*login[: login.index("-u")], "-u", account, "-P", password, "-i", "observer"]
        said = run("mosquitto_sub", *observer, "-t", topic, "-C", "1", "-W", "2", "-F", "%x")
        return said.stdout.strip() == b"will".hex()

    def may_subscribe(self, login: list[str], topic: str) -> bool:
        said = run("mosquitto_sub", *login, "-q", "1", "-t", topic, "-E", "-d").stdout
        assert "Subscribed (mid: 1)" in said, said
        return "Subscribed (mid: 1): 1\n" in said


class JoinedAgent(AgentProcess):
    """An agent in the folder that `join` has filled."""

    def __init__(self, folder: Path, name: str) -> None:
        RestartableProcess.__init__(self, folder / "agent.log")
        self.name, self.folder = name, folder
        self.configuration, self.socket = folder / "agent.toml", folder / "samples.sock"


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """One that is set up and started, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-"))  # pytest's own folders are closed to Mosquitto's account
    folder.chmod(0o755)
    server = Server(folder)
    server.start_all()
    try:
        yield server
    finally:
        server.kill()
        server.broker.kill()
        shutil.rmtree(folder)
