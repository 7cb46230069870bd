"""A cluster of NATS servers that speak MQTT 3.1.1, and a fleet that knows it by one name with all their addresses."""

import shutil
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import free_port
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import RestartableProcess
from tests.support.waiting import until
from workbench.demo.audit import Audit, audit

NAME = "nats.example"
TASK = "digits"
NODES = 3
START_SECONDS, WELL_SECONDS, SEND_SECONDS = 180.0, 60.0, 120.0
SAMPLES_AT_ONCE, FEED_SECONDS = 2, 0.5

CONFIGURATION = """\
server_name = "{name}"
listen = "{host}:{client_port}"
http = "{host}:{monitor_port}"
max_payload = 8388608
jetstream {{ store_dir = "{folder}/jetstream" }}
cluster {{ name = "edgeflock", listen = "{host}:{cluster_port}", routes = [{routes}] }}
mqtt {{ listen = "{host}:{port}", stream_replicas = 3, max_ack_pending = 1000 }}
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """The same on each node's own address."""

    mqtt: int
    client: int
    cluster: int
    monitor: int


class NatsNode(RestartableProcess):
    """One server of a cluster, on an address of its own."""

    def __init__(self, folder: Path, number: int, ports: Ports) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "nats.log")
        self.host, self.name, self._ports = address(number), f"nats-{number}", ports
        self._configuration, self._store = folder / "nats.conf", folder / "jetstream"
        others = [address(each) for each in range(1, NODES + 1) if each != number]
        self._configuration.write_text(
            CONFIGURATION.format(
                name=self.name,
                folder=folder,
                host=self.host,
                port=ports.mqtt,
                client_port=ports.client,
                cluster_port=ports.cluster,
                monitor_port=ports.monitor,
                routes=", ".join(f'"nats://{other}:{ports.cluster}"' for other in others),
            )
        )

    def start(self) -> None:
        """Start it; it serves once most of the cluster is there."""
        self._spawn([shutil.which("nats-server") or "/usr/sbin/nats-server", "-c", str(self._configuration)])

    def rejoin(self) -> bool:
        """Start it after a death, until it has caught up. Where it does not, as docs/brokers.md says happens, it begins
        anew with an empty store, as an operator would let it; returns whether it had to.
        """
        self.start()
        try:
            until(self.is_serving, f"{self.name} is back", WELL_SECONDS)
        except AssertionError:
            self.kill()
            shutil.rmtree(self._store)
            self.start()
            until(self.is_serving, f"{self.name} is back with an empty store", START_SECONDS)
            return True
        return False

    def is_serving(self) -> bool:
        """Whether it takes MQTT clients, and has caught up with the cluster's streams."""
        assert self.exit_status() is None, self.log()[-2000:]
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self._ports.monitor}/healthz", timeout=1) as answer:
                is_healthy = answer.status == 200
            socket.create_connection((self.host, self._ports.mqtt), timeout=1).close()
        except OSError:
            return False
        return is_healthy


class NatsCluster:
    """Three nodes. To programs that are started `by_name`, it is one broker with a name, as a Mosquitto is."""

    def __init__(self, folder: Path) -> None:
        ports = Ports(free_port(), free_port(), free_port(), free_port())
        self.host, self.port = NAME, ports.mqtt
        self.nodes = [NatsNode(folder / f"nats-{number}", number, ports) for number in range(1, NODES + 1)]
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{node.host} {NAME}\n" for node in self.nodes))
        named = f'mount --bind {hosts} /etc/hosts && exec "$@"'
        self.by_name: Sequence[str] = ("unshare", "--mount", "sh", "-c", named, "sh")

    def start(self) -> None:
        """Start all, and return when all serve."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            until(node.is_serving, f"{node.name} serves", START_SECONDS)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


class NatsFleet:
    """A coordinator and devices that are fed all the time, on such a cluster."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.cluster = NatsCluster(folder)
        copy_digits_bundle(folder / TASK, buffer_size=4)
        self.coordinator = CoordinatorProcess(folder / "coordinator", self.cluster, [folder / TASK], protocol="3.1.1")
        key = self.coordinator.public_key
        self.agents = [
            AgentProcess(folder / name, name, self.cluster, key, protocol="3.1.1")
            for name in (f"device-{number}" for number in range(devices))
        ]
        for program in (self.coordinator, *self.agents):
            program.started_by = self.cluster.by_name

    def start(self) -> None:
        """Start everything."""
        self.cluster.start()
        self.coordinator.start_serving()
        for agent in self.agents:
            agent.start()

    @contextmanager
    def fed(self) -> Iterator[None]:
        """Samples come to all devices meanwhile."""
        stopped = threading.Event()
        feeder = threading.Thread(target=self._feed, args=[stopped])
        feeder.start()
        try:
            yield
        finally:
            stopped.set()
            feeder.join()

    def accepted(self) -> int:
        """Updates in the journal."""
        with self.coordinator.journal() as journal:
            return len(list(journal.updates(TASK)))

    def audit(self) -> Audit:
        """What devices and journal say of each update; everything has to have been stopped."""
        with self.coordinator.journal() as journal:
            return audit({agent.name: agent.ledger() for agent in self.agents}, list(journal.updates(TASK)))

    def has_connections(self, node: NatsNode) -> bool:
        """Whether any of the fleet's programs is connected to this node."""
        programs = [psutil.Process(program.pid) for program in (self.coordinator, *self.agents)]
        found = {each.raddr.ip for program in programs for each in program.net_connections("tcp") if each.raddr}
        return node.host in found

    def finish(self) -> None:
        """Wait until devices have sent all that they have, and stop them."""
        until(lambda: not any(agent.status()["waiting_updates"] for agent in self.agents), "all is sent", SEND_SECONDS)
        for agent in self.agents:
            agent.stop()

    def kill(self) -> None:
        for program in (*self.agents, self.coordinator, self.cluster):
            program.kill()

    def _feed(self, stopped: threading.Event) -> None:
        count = 0
        while not stopped.wait(FEED_SECONDS):
            for agent in self.agents:
                agent.feed(SAMPLES_AT_ONCE, count)
            count += SAMPLES_AT_ONCE


def address(number: int) -> str:
    """Of a node, by number from 1: Linux has all of 127.0.0.0/8 on the loopback interface."""
    return f"127.0.0.{number}"
