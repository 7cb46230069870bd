"""Keys and configuration files of a demo fleet: what an operator would write, written by the operator's own commands."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from workbench.demo.brokers import BrokerPlan

FLEET = "demo"
TASK = "digits"

COORDINATOR = """\
fleet = "{fleet}"
key_file = "coordinator.key"
database = "coordinator.db"

[broker]
host = "{host}"
port = {port}
protocol = "{protocol}"
keepalive_seconds = 10

[[tasks]]
bundle = "{bundle}"
"""

AGENT = """\
fleet = "{fleet}"
device = "{device}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
state_folder = "state"
sample_socket = "samples.sock"
profile = "demo"

[broker]
host = "{host}"
port = {port}
protocol = "{protocol}"
keepalive_seconds = 10

[guards]
minimum_samples = {new_samples}
recheck_seconds = 1.0

[worker]
cpu_share = {cpu_share:.2f}

[[tasks]]
name = "{task}"
trigger = {{ new_samples = {new_samples} }}
"""


class CommandFailedError(Exception):
    """One of our own commands did not do what it was asked to."""


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    """One device's folder."""

    name: str
    folder: Path

    @property
    def configuration(self) -> Path:
        """Its agent.toml."""
        return self.folder / "agent.toml"

    @property
    def socket(self) -> Path:
        """Where its samples go."""
        return self.folder / "samples.sock"

    @property
    def database(self) -> Path:
        """The agent's own memory."""
        return self.folder / "state" / "agent.db"


@dataclass(frozen=True, slots=True)
class FleetFiles:
    """The whole fleet's folder."""

    folder: Path
    devices: list[DeviceFiles]

    @property
    def coordinator_configuration(self) -> Path:
        """The coordinator.toml."""
        return self.folder / "coordinator.toml"


async def write_fleet(
    folder: Path, broker: BrokerPlan, bundle: Path, cpu_shares: list[float], new_samples: int
) -> FleetFiles:
    """Make keys, write configurations, approve every device.

    Raises:
        CommandFailedError: `keygen` or `devices approve` failed.
    """
    address = {"fleet": FLEET, "host": broker.host, "port": broker.port, "protocol": broker.protocol}
    coordinator_key = await run_command("broker_coordinator.cli", "keygen", str(folder / "coordinator.key"))
    files = FleetFiles(folder, [])
    files.coordinator_configuration.write_text(COORDINATOR.format(bundle=bundle, **address))
    for number, cpu_share in enumerate(cpu_shares, start=1):
        device = DeviceFiles(f"pi-{number:02}", folder / f"pi-{number:02}")
        device.folder.mkdir()
        public_key = await run_command("edge_agent.cli", "keygen", str(device.folder / "device.key"))
        device.configuration.write_text(
            AGENT.format(
                device=device.name,
                coordinator_key=coordinator_key,
                cpu_share=cpu_share,
                new_samples=new_samples,
                task=TASK,
                **address,
            )
        )
        approve = ("devices", "--config", str(files.coordinator_configuration), "approve", device.name, public_key)
        await run_command("broker_coordinator.cli", *approve)
        files.devices.append(device)
    return files


async def run_command(module: str, *arguments: str) -> str:
    """Run one of our programs to its end and return what it printed.

    Raises:
        CommandFailedError: with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *program(module, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise CommandFailedError(f"{module} {' '.join(arguments)}: {errors.decode(errors='replace').strip()}")
    return output.decode().strip()


def program(module: str, *arguments: str) -> list[str]:
    """The command line of one of our programs, in this very environment."""
    return [sys.executable, "-P", "-m", module, *arguments]
