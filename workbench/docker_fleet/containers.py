"""A fleet's containers: brought up, given their links, hit by faults, and taken down."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from workbench.docker_fleet.compose import IMAGES
from workbench.docker_fleet.devices import PlannedDevice
from workbench.docker_fleet.docker import MISHAP_FORMAT, PROJECT_LABEL, DockerError, docker, mishaps
from workbench.docker_fleet.faults import ACTIONS, BALLAST, Fault
from workbench.docker_fleet.links import (
    BATCH,
    OF_FLEET,
    OF_PROBE,
    LinkSupport,
    lacking,
    link_lines,
    link_of,
    probes,
)
from workbench.docker_fleet.names import BROKER, COORDINATOR, FleetNames

COMPOSE_FILE = "compose.yaml"
LOG_FILE = "fleet.log"
STATE = "state"
"""Folder of a device in which its database is put at the end."""
CLEAR_LINE = "\x1b[2K"
"""compose writes it to a terminal that there is none of."""
AT_ONCE = 4
"""So many commands of docker at a time: each starts a process, or a container."""
RUN_TC = ("run", "--rm", "--interactive", "--user", "0", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--read-only")


class Containers:
    """Those of one fleet. `announce` tells whoever watches what happens to it."""

    def __init__(
        self, folder: Path, names: FleetNames, devices: Sequence[PlannedDevice], announce: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._names = names
        self._devices = {device.name: device for device in devices}
        self._announce = announce
        self._support = LinkSupport(latency=False, uplink=False, downlink=False)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def start(self, *services: str) -> None:
        """Start services by name; their images are not fetched. Raises DockerError."""
        await self._compose("up", "--detach", "--pull", "never", "--no-build", "--no-recreate", *services)

    async def find_link_support(self) -> None:
        """Find out what the kernel can do to a link, and announce what it can't."""
        lines = probes(link_of(next(iter(self._devices.values())).profile))
        tried = {what: await self._tc("none", OF_PROBE, each) for what, each in lines.items()}
        self._support = LinkSupport(**{what: not complaint for what, complaint in tried.items()})
        for words in lacking(self._support):
            self._announce(words)

    async def start_devices(self) -> None:
        """Start every device, and give each its link, as far as the kernel can. Raises DockerError."""
        await self.start(*self._devices)
        await asyncio.gather(*map(self._shape, self._devices))

    async def strike(self, fault: Fault, elapsed_seconds: Callable[[], float]) -> None:
        """Wait for the time of a fault, begin it, and end it if it ends. What fails is announced."""
        action = ACTIONS[fault.action]
        try:
            await asyncio.sleep(max(0.0, fault.after_seconds - elapsed_seconds()))
            await docker(*action.begin(self._names, fault.target))
            self._announce(f"{fault.target} {action.begun}")
            if fault.end_seconds is None:
                return
            await asyncio.sleep(max(0.0, fault.end_seconds - elapsed_seconds()))
            await docker(*action.end(self._names, fault.target))
            self._announce(f"{fault.target} {action.ended}")
        except DockerError as error:
            self._announce(f"{fault.action} {fault.target} failed: {error}")
        else:
            if action.new_link and fault.target in self._devices:
                await self._shape(fault.target)

    async def stop(self) -> None:
        """Shut devices and coordinator down in order; what stands still goes on for that. Raises DockerError."""
        project = f"label={PROJECT_LABEL}={self._names.project}"
        if paused := (await docker("ps", "--quiet", "--filter", project, "--filter", "status=paused")).split():
            await docker("unpause", *paused)
        await self._compose("stop", *self._devices)
        await self._compose("stop", COORDINATOR)

    async def collect(self) -> list[str]:
        """Copy every device's database into the folder; returns what befell services, in words. Raises DockerError."""
        await asyncio.gather(*map(self._collect_disk, self._devices))
        services = (*self._devices, BROKER, COORDINATOR)
        said = await docker("inspect", "--format", MISHAP_FORMAT, *map(self._names.container, services))
        return list(mishaps(services, said))

    async def write_logs(self) -> None:
        """Write what all services have said into the folder, if docker says it."""
        with contextlib.suppress(DockerError, OSError):
            said = await self._compose("logs", "--no-color", "--timestamps")
            (self._folder / LOG_FILE).write_text(said.replace(CLEAR_LINE, ""))

    async def down(self) -> None:
        """Take down whatever is up, with its networks and disks. Raises DockerError."""
        await self._compose("down", "--volumes", "--remove-orphans")

    async def _compose(self, *arguments: str) -> str:
        file = str(self._folder / COMPOSE_FILE)
        return await docker("compose", "--project-name", self._names.project, "--file", file, *arguments)

    async def _shape(self, device: str) -> None:
        lines = link_lines(link_of(self._devices[device].profile), self._support)
        if lines and (complaint := await self._tc(f"container:{self._names.container(device)}", OF_FLEET, lines)):
            self._announce(f"{device} has no link of its own: {complaint}")

    async def _tc(self, network: str, interface: str, lines: Iterable[str]) -> str:
        """Run lines of tc in the network of a container; returns what it complained of."""
        batch = "".join(f"{line}\n" for line in lines).encode()
        async with self._room:
            try:
                await docker(
                    *RUN_TC, "--network", network, IMAGES["network"], "sh", "-c", BATCH, "tc", interface, stdin=batch
                )
            except DockerError as error:
                return str(error)
        return ""

    async def _collect_disk(self, device: str) -> None:
        target = self._folder / "devices" / device / STATE
        async with self._room:
            await docker("exec", self._names.disks, "rm", "-f", self._names.disk_path(device, BALLAST))
            await docker("cp", f"{self._names.disks}:{self._names.disk_path(device)}/.", str(target))
