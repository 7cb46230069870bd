"""The shipped `edge-agent` as a process of its own, which can be killed, wiped and started again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from broker_coordinator.bundle_store import Bundle, load_bundle
from fleet_protocol.bundle import DESCRIPTION_FILE, parse_description
from fleet_protocol.keys import SigningKey, VerifyKey, write_signing_key, write_verify_key
from tests.support.broker import Broker
from tests.support.coordinator import FLEET
from tests.support.waiting import until
from workbench.demo.audit import DeviceLedger, read_ledger
from workbench.recipe_folder import find_recipe

CONFIGURATION = """\
fleet = "{fleet}"
device = "{device}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
seal_updates = {seal_updates}
state_folder = "state"
sample_socket = "samples.sock"

[broker]
host = "{host}"
port = {port}
protocol = "{protocol}"
keepalive_seconds = 5

[guards]
minimum_samples = 4
recheck_seconds = 0.5

[[tasks]]
name = "digits"
trigger = {{ new_samples = 4 }}
"""


def copy_digits_bundle(folder: Path, **aggregation: object) -> Bundle:
    """The shipped digits bundle with another aggregation plan."""
    shutil.copytree(find_recipe("digits") / "bundle", folder)
    description = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    plan = msgspec.structs.replace(description.aggregation, **aggregation)
    changed = msgspec.structs.replace(description, aggregation=plan)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return load_bundle(folder)


class AgentProcess:
    """An agent's folder (`agent.toml`, key, state) and the process that runs in it."""

    def __init__(
        self,
        folder: Path,
        name: str,
        broker: Broker,
        coordinator_key: VerifyKey,
        *,
        protocol: str = "5",
        seal: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.folder = name, folder
        self.configuration, self.socket = folder / "agent.toml", folder / "samples.sock"
        self._log = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None
        key = SigningKey.generate()
        self.public_key = write_verify_key(key.verify_key)
        (folder / "device.key").touch(mode=0o600)
        (folder / "device.key").write_text(write_signing_key(key))
        self.configuration.write_text(
            CONFIGURATION.format(
                fleet=FLEET,
                device=name,
                coordinator_key=write_verify_key(coordinator_key),
                host=broker.host,
                port=broker.port,
                protocol=protocol,
                seal_updates=str(seal).lower(),
            )
        )

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it takes samples."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-P", "-m", "edge_agent.cli", "run", "--config", str(self.configuration)]
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until(self.status, "the agent answers")

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Lose everything but configuration and key, as a new SD card would. Only while it does not run."""
        shutil.rmtree(self.folder / "state")

    def log(self) -> str:
        """Everything it has logged."""
        return self._log.read_text()

    def ledger(self) -> DeviceLedger:
        """What its database remembers of its updates. Only while it does not run."""
        return read_ledger(self.folder / "state" / "agent.db")

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty where it can't be reached."""
        try:
            return self.ask({"command": "status"})
        except OSError:
            return {}

    def feed(self, count: int, first: int = 0) -> None:
        """Give it samples that look a little like digits; each must be accepted."""
        for number in range(first, first + count):
            label = number % 10
            inputs = [1.0 if (position * 7 + label * 13) % 10 < 3 else 0.0 for position in range(64)]
            assert self.ask({"task": "digits", "inputs": inputs, "label": label}) == {"ok": True}

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line to its socket, and the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(json.dumps(question).encode() + b"\n")
            answer = connection.makefile("rb").readline()
        if not answer:
            raise ConnectionResetError("the agent hung up")
        return dict(json.loads(answer))

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        return int(self._process.wait(timeout=15))
