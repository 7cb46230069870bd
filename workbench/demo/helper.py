"""The helper of a demo whose weak devices leave blocks of the model to it: its files, and the operator's consent."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fleet_protocol.errors import ConfigurationError
from session_relay.helper.status import HelperStatus, ask_helper
from workbench.demo.brokers import BrokerPlan
from workbench.demo.children import Child
from workbench.demo.fleet_files import FLEET, FleetFiles, program, run_command

NAME = "gateway"
READY_SECONDS = 20.0
ASK_SECONDS = 0.3

HELPER = """\
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
recheck_seconds = 1.0

[worker]
nice = 0

[helper]
settle_seconds = 0.3
gather_seconds = 3.0

[[tasks]]
name = "{task}"
"""


@dataclass(frozen=True, slots=True)
class HelperFiles:
    """The helper's folder; its socket is elsewhere, as those of devices."""

    name: str
    folder: Path
    socket: Path

    @property
    def configuration(self) -> Path:
        """Its helper.toml."""
        return self.folder / "helper.toml"

    @property
    def database(self) -> Path:
        """Its database, of the kind that devices have."""
        return self.folder / "state" / "agent.db"


async def write_helper(
    files: FleetFiles, sockets: Path, broker: BrokerPlan, coordinator_key: str, name: str = NAME
) -> HelperFiles:
    """Make its key, and write its configuration.

    Raises:
        CommandFailedError: one of edgeflock's commands failed.
    """
    helper = HelperFiles(name, files.folder / name, sockets / name)
    helper.folder.mkdir()
    helper.configuration.write_text(
        HELPER.format(
            fleet=FLEET,
            device=helper.name,
            coordinator_key=coordinator_key,
            socket=helper.socket,
            host=broker.host,
            port=broker.port,
            protocol=broker.protocol,
            task=files.task,
        )
    )
    await run_command("edge_agent.cli", "keygen", str(helper.folder / "device.key"))
    return helper


async def allow_helper(files: FleetFiles, helper: HelperFiles) -> None:
    """What the operator types, once the coordinator has its database.

    Raises:
        CommandFailedError: the coordinator does not know how.
    """
    coordinator = ("--config", str(files.coordinator_configuration))
    await run_command("broker_coordinator.cli", "helpers", "allow", *coordinator, helper.name)


async def until_ready(helper: HelperFiles, task: str) -> None:
    """Wait until it offers the task: a device that asks before that asks again much later.

    Raises:
        ConfigurationError: it does not within `READY_SECONDS`.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            while task not in await asyncio.to_thread(_versions, helper.socket):  # noqa: ASYNC110 - no event: a process
                await asyncio.sleep(ASK_SECONDS)
            return
    raise ConfigurationError(f"the helper offers nothing (waited {READY_SECONDS:g} s); see {helper.folder}/helper.log")


def _versions(socket: Path) -> Mapping[str, int]:
    """What it offers, by task; nothing before it listens."""
    with contextlib.suppress(ConfigurationError):
        return msgspec.json.decode(ask_helper(socket), type=HelperStatus).versions
    return {}


def helper_child(helper: HelperFiles, announce: Callable[[str], None]) -> Child:
    """The helper's program; `announce` is told where it is killed."""
    command = program("workbench.program", "helper", "run", "--config", str(helper.configuration))
    return Child(helper.name, command, helper.folder / "helper.log", announce)
