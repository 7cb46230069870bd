"""A RabbitMQ server whose MQTT plug-in takes the place of a Mosquitto; it can be killed and come back."""

import os
import socket
import subprocess
from pathlib import Path

import psutil

from tests.support.broker import free_port
from tests.support.process import RestartableProcess
from tests.support.waiting import until

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""What the wrapper of Debian's package starts, which insists on an account and folders of its own."""
START_SECONDS = 120.0


class RabbitMq(RestartableProcess):
    """One node in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "rabbitmq.log")
        self.host, self.port = "127.0.0.1", free_port()
        (folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{free_port()}\nmqtt.listeners.tcp.1 = {self.host}:{self.port}\n"
            "mqtt.allow_anonymous = true\nmqtt.subscription_ttl = 86400000\nmqtt.prefetch = 1000\n"
        )
        self.variables = {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"test{os.getpid()}@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOGS": "-",
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
        }

    def start(self) -> None:
        """Start it, and return when it takes MQTT clients."""
        self._spawn([SERVER])
        until(self.is_serving, "RabbitMQ serves", START_SECONDS)

    def kill(self) -> None:
        """Kill the server, which the process that was started is only the script of."""
        if self.exit_status() is None:
            for child in psutil.Process(self.pid).children(recursive=True):
                child.kill()
        super().kill()
        until(lambda: not self.is_listening(), "it is gone")

    def end(self) -> None:
        """Kill it, and the daemon by which its nodes would find each other."""
        self.kill()
        subprocess.run(["epmd", "-kill"], env=os.environ | self.variables, check=False, capture_output=True)

    def is_serving(self) -> bool:
        """Whether it listens for MQTT."""
        assert self.exit_status() is None, self.log()[-2000:]
        return self.is_listening()

    def is_listening(self) -> bool:
        """Whether anybody listens at its port."""
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True
