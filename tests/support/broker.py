"""A real Mosquitto on a free loopback port, which can be killed and come back on the same port."""

import contextlib
import os
import random
import shutil
import socket
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Protocol

from tests.support.process import RestartableProcess
from tests.support.waiting import until

MOSQUITTO = os.environ.get("EDGEFLOCK_MOSQUITTO") or shutil.which("mosquitto") or "/usr/sbin/mosquitto"
"""The environment may name another release, and its dynamic security as EDGEFLOCK_MOSQUITTO_PLUGIN."""

SERVER_PORTS = range(20_000, 32_000)
"""Below those from which Linux takes ports for outgoing connections: a stopped server's port stays free."""


def ports_of(worker: str, workers: int) -> Iterator[int]:
    """What one of so many test processes may take, `gw2` or, where it is alone, none: each once, and no other has them.
    A server that is stopped, or has not been started yet, finds its port as it left it.
    """
    own = SERVER_PORTS[int(worker.removeprefix("gw") or 0) :: workers]
    return cycle(random.SystemRandom().sample(own, len(own)))


_PORTS = ports_of(os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def free_port() -> int:
    """A loopback port that was free a moment ago, and that no other test beside this one is given."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = next(_PORTS)
            probe.bind(("127.0.0.1", port))
            return port


def security_plugin() -> Path:
    """Mosquitto's dynamic security."""
    if named := os.environ.get("EDGEFLOCK_MOSQUITTO_PLUGIN"):
        return Path(named)
    return next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))


class Address(Protocol):
    """Where programs find a broker."""

    host: str
    port: int


class Broker(RestartableProcess):
    """One Mosquitto process with its folder. Asked to leave, it writes its persistence file first."""

    def __init__(
        self,
        folder: Path,
        *,
        maximum_packet_bytes: int = 5_000_000,
        access_list: str = "",
        security: Path | None = None,
        anonymous: bool = True,
    ) -> None:
        """0 is no limit. `access_list` is the content of an `acl_file`, `security` the rules of Mosquitto's own plugin
        for access control; without either everybody may do everything, unless not `anonymous`: then nobody may connect.
        """
        super().__init__(folder / "mosquitto.log")
        self.host, self.port = "127.0.0.1", free_port()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} {self.host}\nallow_anonymous {str(anonymous).lower()}\nuser root\n"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
            "max_inflight_messages 1000\nmax_queued_messages 100000\n"
            + (f"max_packet_size {maximum_packet_bytes}\n" if maximum_packet_bytes else "")
            + (f"acl_file {folder}/access_list\n" if access_list else "")
            + (f"plugin {security_plugin()}\nplugin_opt_config_file {security}\n" if security else "")
        )
        (folder / "access_list").write_text(access_list)
        (folder / "access_list").chmod(0o600)

    def start(self) -> None:
        """Start the broker, and return when it listens."""
        self._spawn([MOSQUITTO, "-c", str(self._folder / "mosquitto.conf")])
        until(self._listens, "the broker listens")

    def wipe(self) -> None:
        """Lose its disk. Only while it does not run."""
        (self._folder / "mosquitto.db").unlink(missing_ok=True)

    def _listens(self) -> bool:
        assert self.exit_status() is None, self.log()
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True
