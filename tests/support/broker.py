"""A real Mosquitto on a free loopback port, which can be killed and come back on the same port."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.waiting import until

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One Mosquitto process with its folder. `start` may be called again after `kill` or `stop`."""

    def __init__(self, folder: Path) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} {self.host}\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
            "max_inflight_messages 1000\nmax_queued_messages 100000\nmax_packet_size 5000000\n"
        )

    def start(self) -> None:
        """Start the broker, and return when it listens."""
        with (self._folder / "mosquitto.log").open("ab") as log:
            command = [MOSQUITTO, "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._listens, "the broker listens")

    def kill(self) -> None:
        """`kill -9`: whatever it had in memory is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to leave; it writes its persistence file first."""
        self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Lose its disk. Only while it does not run."""
        (self._folder / "mosquitto.db").unlink(missing_ok=True)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
            self._process.wait(timeout=10)
