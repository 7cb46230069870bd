"""The demo's broker: Mosquitto where it is installed, else amqtt, or one that the user runs already."""

import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from fleet_protocol.errors import ConfigurationError

MOSQUITTO_PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
"""Debian installs Mosquitto in a folder that is not in an ordinary user's PATH."""

MOSQUITTO_CONFIGURATION = """\
listener {listener}
allow_anonymous true
persistence false
max_packet_size 5000000
max_queued_messages 10000
max_inflight_messages 100
set_tcp_nodelay true
log_type error
log_type warning
"""


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """Where the broker is and, where the demo starts it, how."""

    label: str
    host: str
    port: int
    protocol: str
    command: list[str] | None


def plan_broker(choice: str, folder: Path) -> BrokerPlan:
    """Decide on a broker for `--broker`: auto, mosquitto, embedded or HOST:PORT.

    Raises:
        ConfigurationError: Mosquitto was asked for and is not installed, or the choice can't be read.
    """
    if choice in {"auto", "mosquitto"} and (program := _find_mosquitto()):
        port = free_port()
        file = folder / "mosquitto.conf"
        file.write_text(MOSQUITTO_CONFIGURATION.format(listener=f"{port} 127.0.0.1"))
        return BrokerPlan("mosquitto", "127.0.0.1", port, "5", [program, "-c", str(file)])
    if choice == "mosquitto":
        raise ConfigurationError("--broker mosquitto: it is not installed; run: sudo apt-get install mosquitto")
    if choice in {"auto", "embedded"}:
        port = free_port()
        command = [sys.executable, "-P", "-m", "workbench.demo.embedded_broker", str(port)]
        return BrokerPlan("embedded (amqtt)", "127.0.0.1", port, "3.1.1", command)
    host, _, port_text = choice.rpartition(":")
    if not host or not port_text.isdecimal() or not 0 < int(port_text) < 65536:
        raise ConfigurationError(f"--broker {choice!r}: use auto, mosquitto, embedded or HOST:PORT")
    return BrokerPlan(choice, host, int(port_text), "3.1.1", None)


def free_port() -> int:
    """A TCP port on loopback that is not in use now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find_mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=MOSQUITTO_PLACES)
