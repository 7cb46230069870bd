"""Keys and configurations of a demo fleet: what an operator would write, made by the operator's own commands."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from fleet_host.child_process import bound
from workbench.demo.brokers import BrokerPlan

FLEET = "demo"
TASK = "digits"

COORDINATOR = """\
fleet = "{fleet}"
key_file = "coordinator.key"
database = "coordinator.db"
enrolment = "open" # a lab: every device that enrols is approved

[broker]
host = "{host}"
port = {port}
protocol = "{protocol}"
keepalive_seconds = 10

[[tasks]]
bundle = "{bundle}"
"""

DASHBOARD = """
[dashboard]
port = {port}
"""

AGENT = """\
fleet = "{fleet}"
device = "{device}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
state_folder = "state"
sample_socket = "{socket}"

[broker]
host = "{host}"
port = {port}
protocol = "{protocol}"
keepalive_seconds = 10

[guards]
minimum_samples = {new_samples}
recheck_seconds = 1.0

[worker]
nice = 0
cpu_share = {cpu_share:.2f}

[[tasks]]
name = "{task}"
trigger = {{ {trigger} }}
split = {{ cut = "{cut}" }}
"""

WHOLE = "off"
"""The cut of a device that trains the whole model, in agent.toml."""


class CommandFailedError(Exception):
    """One of edgeflock's commands failed."""


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    """One device's folder. Its socket is elsewhere: the path of a Unix socket may have 107 characters at most."""

    name: str
    folder: Path
    socket: Path
    cut: str = WHOLE

    @property
    def configuration(self) -> Path:
        """Its agent.toml."""
        return self.folder / "agent.toml"

    @property
    def database(self) -> Path:
        """Its agent.db."""
        return self.folder / "state" / "agent.db"


@dataclass(frozen=True, slots=True)
class FleetFiles:
    """The whole fleet's folder."""

    folder: Path
    devices: list[DeviceFiles]
    task: str = TASK

    @property
    def coordinator_configuration(self) -> Path:
        """The coordinator.toml."""
        return self.folder / "coordinator.toml"

    @property
    def coordinator_database(self) -> Path:
        """The journal and the versions."""
        return self.folder / "coordinator.db"


def plan_files(
    folder: Path, sockets: Path, agents: int, *, task: str = TASK, cuts: Sequence[str] = (WHOLE,)
) -> FleetFiles:
    """Where everything will be: one folder per device in `folder`, one socket per device in `sockets`. `cuts` are those
    of the devices, in turn.
    """
    names = [f"pi-{number:02}" for number in range(1, agents + 1)]
    devices = [DeviceFiles(name, folder / name, sockets / name, cut) for name, cut in zip(names, cycle(cuts))]
    return FleetFiles(folder, devices, task)


async def write_fleet(
    files: FleetFiles,
    broker: BrokerPlan,
    bundle: Path,
    cpu_shares: Sequence[float],
    new_samples: int,
    *,
    task: str = "",
    keeps_training: bool = False,
    dashboard_port: int | None = None,
) -> str:
    """Make every key and write every configuration; returns the coordinator's public key. A fleet that `keeps_training`
    does it at every version, also without new samples.

    Raises:
        CommandFailedError: `keygen` failed.
    """
    address = {"fleet": FLEET, "host": broker.host, "port": broker.port, "protocol": broker.protocol}
    coordinator_key = await run_command("broker_coordinator.cli", "keygen", str(files.folder / "coordinator.key"))
    pages = "" if dashboard_port is None else DASHBOARD.format(port=dashboard_port)
    files.coordinator_configuration.write_text(COORDINATOR.format(bundle=bundle, **address) + pages)
    for device, cpu_share in zip(files.devices, cpu_shares, strict=True):
        device.folder.mkdir()
        device.configuration.write_text(
            AGENT.format(
                device=device.name,
                coordinator_key=coordinator_key,
                socket=device.socket,
                cpu_share=cpu_share,
                new_samples=new_samples,
                trigger=f"new_samples = {new_samples}" + keeps_training * ", new_version = true",
                task=task or files.task,
                cut=device.cut,
                **address,
            )
        )
    keys = [str(device.folder / "device.key") for device in files.devices]
    await asyncio.gather(*(run_command("edge_agent.cli", "keygen", key) for key in keys))
    return coordinator_key


async def run_command(module: str, *arguments: str) -> str:
    """Run one of our programs to its end and return what it printed.

    Raises:
        CommandFailedError: with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *bound(program(module, *arguments)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise CommandFailedError(f"{module} {' '.join(arguments)}: {errors.decode(errors='replace').strip()}")
    return output.decode().strip()


def program(module: str, *arguments: str) -> list[str]:
    """The command line of one of our programs, in this very environment."""
    return [sys.executable, "-P", "-m", module, *arguments]
