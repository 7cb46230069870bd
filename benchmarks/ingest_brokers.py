"""The brokers that `benchmarks.ingest` measures with, each started anew on this machine."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mqtt_load import MqttLoad
from tests.support.nats import NatsCluster, address
from workbench.demo.brokers import MOSQUITTO_PLACES, free_port

MOSQUITTO_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_packet_size 5000000
max_queued_messages 100000
max_inflight_messages 1000
set_tcp_nodelay true
log_type error
"""

CONNECTIONS_TO_NATS = 32
"""It stores one message of a connection after the other, and a fleet has many connections."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker is, the MQTT that it speaks, and how many `connections` it takes to keep it busy."""

    host: str
    port: int
    protocol: str = "5"
    connections: int = 1


class ManyLoads:
    """Several connections as one: each topic's messages go over the same one; the first hears what comes."""

    def __init__(self, place: Place, client_id: str) -> None:
        self._loads = [MqttLoad(place.host, place.port, f"{client_id}-{number}") for number in range(place.connections)]

    @property
    def subscribe(self) -> Callable[[str], None]:
        """Of the first one."""
        return self._loads[0].subscribe

    def publish(self, topic: str, data: bytes) -> None:
        """As `MqttLoad.publish`."""
        self._loads[hash(topic) % len(self._loads)].publish(topic, data)

    def poll(self, seconds: float) -> list[tuple[float, bytes]]:
        """As `MqttLoad.poll`: all send what is queued, and the first one waits."""
        for load in self._loads[1:]:
            load.poll(0.0)
        return self._loads[0].poll(seconds)

    def close(self) -> None:
        """Drop the connections."""
        for load in self._loads:
            load.close()


def start_broker(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A Mosquitto of its own."""
    file = folder / "mosquitto.conf"
    file.write_text(MOSQUITTO_CONFIGURATION.format(port=port))
    path = f"{os.environ['PATH']}:{MOSQUITTO_PLACES}"
    return subprocess.Popen(["mosquitto", "-c", str(file)], env=os.environ | {"PATH": path})


@contextmanager
def mosquitto(folder: Path) -> Iterator[Place]:
    """One Mosquitto."""
    port = free_port()
    broker = start_broker(folder, port)
    try:
        yield Place("127.0.0.1", port)
    finally:
        broker.send_signal(signal.SIGTERM)
        broker.wait()


@contextmanager
def nats(folder: Path) -> Iterator[Place]:
    """Three NATS servers that keep three replicas of each message; all connections are to the first."""
    cluster = NatsCluster(folder)
    try:
        cluster.start()
        yield Place(address(1), cluster.port, "3.1.1", CONNECTIONS_TO_NATS)
    finally:
        cluster.kill()


BROKERS = {"mosquitto": mosquitto, "nats": nats}
