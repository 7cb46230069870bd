"""A fleet of split learning on this machine, of the shipped programs: broker, coordinator with its relay, one helper,
agents. Only the devices' links may have a latency.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.client import AgentClient
from fleet_host.child_process import bound
from fleet_protocol.task_description import TaskDescription
from workbench.demo.brokers import MOSQUITTO_CONFIGURATION, MOSQUITTO_PLACES, free_port

FLEET = "bench"
HELPER = "helper"
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 120.0

COORDINATOR = """\
fleet = "{fleet}"
key_file = "coordinator.key"
database = "coordinator.db"
enrolment = "open"

[broker]
host = "127.0.0.1"
port = {port}

[relay]
metrics_port = {metrics_port}

[[tasks]]
bundle = "{bundle}"
"""

MEMBER = """\
fleet = "{fleet}"
device = "{name}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
state_folder = "state"
sample_socket = "{socket}"

[broker]
host = "127.0.0.1"
port = {port}

[guards]
minimum_samples = 1
recheck_seconds = 1.0

[worker]
nice = 0
memory_limit_mib = 4096
time_limit_seconds = 3600

[[tasks]]
name = "{task}"
"""


class FleetFailedError(Exception):
    """A program ended by itself, or did not do its part in time; has the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """One running program."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> float:
        """Of it and all that it has started, so far."""
        whole = psutil.Process(self.process.pid)
        return sum(sum(each.cpu_times()[:2]) for each in [whole, *whole.children(recursive=True)])

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


@dataclass
class Device:
    """One agent, and what it says of itself."""

    name: str
    socket: Path
    program: Program

    def deliver(self, task: str, samples: Samples) -> None:
        """Hand its samples over."""
        with AgentClient(self.socket) as agent:
            for inputs, label in zip(samples.inputs, samples.labels, strict=True):
                agent.send(task, inputs.ravel().tolist(), int(label))

    def status(self) -> dict[str, Any]:
        """What it does now."""
        with AgentClient(self.socket) as agent:
            return agent.status()

    def train(self) -> None:
        """Ask for a round."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(b'{"command": "train"}\n')
            connection.recv(4096)


@dataclass
class SplitFleet:
    """Everything that runs."""

    folder: Path
    task: TaskDescription
    metrics_port: int
    programs: list[Program] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)

    def check(self) -> None:
        """Raise `FleetFailedError` where a program has ended."""
        for program in self.programs:
            if program.process.poll() is not None:
                raise FleetFailedError(f"{program.name} ended: {tail(program.log)}")

    def wait(self, done: Any, what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `done()`.

        Raises:
            FleetFailedError: it took too long, or a program ended.
        """
        until = time.monotonic() + seconds
        while not done():
            self.check()
            if time.monotonic() > until:
                logs = "\n".join(f"{each.name}: {tail(each.log)}" for each in self.programs)
                raise FleetFailedError(f"{what}: not within {seconds:g} s\n{logs}")
            time.sleep(POLL_SECONDS)

    def deliver(self, parts: Sequence[Samples]) -> None:
        """Hand each device its samples."""
        for device, part in zip(self.devices, parts, strict=True):
            device.deliver(self.task.task, part)


@contextlib.contextmanager
def split_fleet(
    folder: Path, bundle: Path, cuts: Sequence[str], *, latency_milliseconds: float = 0.0
) -> Iterator[SplitFleet]:
    """A fleet whose devices have these cuts, which is enrolled and ready; all of it ends with the block."""
    port, metrics_port = free_port(), free_port()
    fleet = SplitFleet(folder, load_bundle(bundle).description, metrics_port)
    with contextlib.ExitStack() as ends:
        (folder / "mosquitto.conf").write_text(MOSQUITTO_CONFIGURATION.format(listener=f"{port} 127.0.0.1"))
        _start(fleet, ends, "broker", [_mosquitto(), "-c", str(folder / "mosquitto.conf")])
        key = _run("broker_coordinator.cli", "keygen", str(folder / "coordinator.key"))
        settings = {"fleet": FLEET, "coordinator_key": key, "task": fleet.task.task}
        configuration = folder / "coordinator.toml"
        configuration.write_text(COORDINATOR.format(port=port, metrics_port=metrics_port, bundle=bundle, **settings))
        _start(fleet, ends, "coordinator", _program("broker_coordinator.cli", "run", "--config", str(configuration)))
        helper, helper_key = _write_member(folder, HELPER, "helper.toml", port=port, **settings)
        for words in (["devices", "approve", HELPER, helper_key], ["helpers", "allow", HELPER]):
            _run("broker_coordinator.cli", *words, "--config", str(configuration))
        _start(fleet, ends, HELPER, _program("session_relay.helper.cli", "run", "--config", str(helper)))
        device_port = _delayed(ends, port, latency_milliseconds) if latency_milliseconds else port
        for number, cut in enumerate(cuts):
            _start_device(fleet, ends, f"device-{number}", cut, port=device_port, **settings)
        for device in fleet.devices:
            fleet.wait(device.socket.exists, f"{device.name} listens")
        fleet.wait(lambda: all(each.status()["versions"] for each in fleet.devices), "devices know a version")
        fleet.wait(lambda: "version_offered" in (folder / f"{HELPER}.log").read_text(), "the helper offers a version")
        yield fleet


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-1500:]


def _start_device(running: SplitFleet, ends: contextlib.ExitStack, name: str, cut: str, **settings: object) -> None:
    file, _ = _write_member(running.folder, name, "agent.toml", **settings)
    with file.open("a") as text:
        text.write(f'split = {{ cut = "{cut}" }}\ntrigger = {{ new_samples = 1000000 }}\n')
    program = _start(running, ends, name, _program("edge_agent.cli", "run", "--config", str(file)))
    running.devices.append(Device(name, file.parent / "s.sock", program))


def _write_member(folder: Path, name: str, file: str, **settings: object) -> tuple[Path, str]:
    """Its configuration, and its public key."""
    own = folder / name
    own.mkdir()
    key = _run("edge_agent.cli", "keygen", str(own / "device.key"))
    (own / file).write_text(MEMBER.format(name=name, socket=own / "s.sock", **settings))
    return own / file, key


def _delayed(ends: contextlib.ExitStack, port: int, milliseconds: float) -> int:
    command = _program("benchmarks.delayed_link", "--to", str(port), "--milliseconds", str(milliseconds))
    process = subprocess.Popen(bound(command), stdout=subprocess.PIPE)
    ends.callback(process.wait)
    ends.callback(process.terminate)
    assert process.stdout is not None
    return int(process.stdout.readline())


def _start(fleet: SplitFleet, ends: contextlib.ExitStack, name: str, command: list[str]) -> Program:
    log = fleet.folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(bound(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    program = Program(name, process, log)
    ends.callback(program.stop)
    fleet.programs.append(program)
    return program


def _run(module: str, *arguments: str) -> str:
    return subprocess.run(_program(module, *arguments), check=True, capture_output=True, text=True).stdout.strip()


def _program(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _mosquitto() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=MOSQUITTO_PLACES)
    assert found, "Mosquitto is not installed"
    return found


def relayed(fleet: SplitFleet) -> dict[str, float]:
    """The relay's counters."""
    with urllib.request.urlopen(f"http://127.0.0.1:{fleet.metrics_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}
