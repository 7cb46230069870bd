"""`edgeflock simulate --docker`: from the user's options to a run, and from its end to what is said."""

import asyncio
import shlex
import socket
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fleet_protocol.errors import ConfigurationError
from workbench.demo.brokers import free_port
from workbench.demo.run import short_folder
from workbench.demo.run_folder import claimed
from workbench.demo.show import show_run
from workbench.docker_fleet.compose import IMAGES
from workbench.docker_fleet.containers import COMPOSE_FILE
from workbench.docker_fleet.devices import GUIDE, plan_devices
from workbench.docker_fleet.docker import ready_host, require_images, require_none_up
from workbench.docker_fleet.faults import read_faults
from workbench.docker_fleet.limits import Host, require_room
from workbench.docker_fleet.names import BROKER, COORDINATOR, FleetNames
from workbench.docker_fleet.run import DockerRun, run_fleet
from workbench.fleet_description import read_description


@dataclass(frozen=True, slots=True)
class DockerRequest:
    """What the user asked for; `faults` come on top of those of the file."""

    fleet: Path
    faults: Sequence[str]
    seed: int
    out: Path
    keep: bool


def simulate_in_docker(request: DockerRequest) -> None:
    """Run a fleet in containers, show it, and write what came of it into `request.out`.

    Raises:
        ConfigurationError: with what the user can change; no container is left, unless the fleet was to stay.
    """
    description = read_description(request.fleet, GUIDE)
    settings = description.docker
    devices = plan_devices(description, request.fleet)
    names = [device.name for device in devices]
    sentences = [*settings.faults, *request.faults]
    faults = read_faults(sentences, names, (BROKER, COORDINATOR), settings.longest_seconds)
    folder = request.out.resolve()
    compose_file = shlex.quote(str(request.out / COMPOSE_FILE))
    host = asyncio.run(_ready(FleetNames.of(folder).project, compose_file))
    require_room(devices, host)
    port = usable_port(settings.broker_port)
    with claimed(folder), _sockets(keep=request.keep) as sockets:
        run = DockerRun(
            folder,
            sockets,
            devices,
            faults,
            host,
            port,
            settings.deliver_seconds,
            settings.longest_seconds,
            request.seed,
            request.keep,
        )
        headline = f"edgeflock simulate: {len(devices)} containers, seed {request.seed}, everything in {request.out}/"
        show_run(headline, request.out, lambda show: run_fleet(run, show))
    if request.keep:
        down = f"docker compose -f {compose_file} down --volumes && rm -r {sockets}"
        print(f"the fleet stays up; take it down: {down}")


async def _ready(project: str, compose_file: str) -> Host:
    host = await ready_host()
    await require_images(IMAGES)
    await require_none_up(project, compose_file)
    return host


def _sockets(*, keep: bool) -> AbstractContextManager[Path]:
    """A new folder for the devices' sockets; it stays with a fleet that does."""
    return nullcontext(Path(tempfile.mkdtemp(prefix="edgeflock-"))) if keep else short_folder()


def usable_port(port: int | None) -> int:
    """A port of 127.0.0.1 for the broker: the one that is wanted, or any.

    Raises:
        ConfigurationError: another program has it.
    """
    if port is None:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"[docker] broker_port = {port}: {error.strerror}; choose another, or leave it out for a free one"
            ) from error
    return port
