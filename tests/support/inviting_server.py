"""What `broker-coordinator setup --host localhost` makes, in a folder: a Mosquitto and a coordinator that invites."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.broker import MOSQUITTO, free_port
from tests.support.process import RestartableProcess, environment
from tests.support.waiting import until


class InvitingServer:
    """Both processes. The folder must be open to Mosquitto's account, which pytest's own are not."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._configuration = folder / "broker-coordinator" / "coordinator.toml"
        self._broker = _Program(
            folder / "mosquitto.log", [MOSQUITTO, "-c", str(folder / "mosquitto-edgeflock/mosquitto.conf")]
        )
        self._coordinator = _Program(folder / "coordinator.log", self._command("run"))
        self._run("setup", "--host", "localhost", "--port", str(self.port), "--folder", str(folder))

    def start(self, network_of: int | None = None) -> None:
        """Start both, and return when the coordinator has reached its broker.

        They have this machine's network, or that of a process.
        """
        inside = [] if network_of is None else ["nsenter", f"--net=/proc/{network_of}/ns/net", "--"]
        self._broker.start(inside)
        self._coordinator.log_file.unlink(missing_ok=True)
        self._coordinator.start(inside)
        until(lambda: "broker_connected" in self._coordinator.log(), "the coordinator has reached its broker")

    def stop(self) -> None:
        """End both."""
        self._coordinator.stop()
        self._broker.stop()

    def publish(self, bundle: Path) -> None:
        """Serve a task."""
        self._run("tasks", "publish", str(bundle))

    def invite(self, device: str) -> str:
        """The line of an invitation."""
        return str(json.loads(self._run("devices", "invite", device, "--json"))["invitation"])

    def task(self) -> dict[str, Any]:
        """The one task that is served."""
        (task,) = json.loads(self._run("tasks", "list", "--json"))
        return dict(task)

    def _run(self, *words: str) -> str:
        done = subprocess.run(self._command(*words), capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "broker_coordinator.cli", "--config", str(self._configuration), *words]


class _Program(RestartableProcess):
    """One command."""

    def __init__(self, log_file: Path, command: list[str]) -> None:
        super().__init__(log_file)
        self._command = command

    def start(self, inside: list[str]) -> None:
        """Start it, by a command that goes before its own."""
        self._spawn([*inside, *self._command])
