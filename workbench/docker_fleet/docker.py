"""The command `docker`: run, and what keeps it from working said in words."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from fleet_host.child_process import bound
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from workbench.docker_fleet.limits import Host

PROGRAM = "docker"
GUIDE = "docs/fleet-in-docker.md"
NO_PROGRAM = f"--docker: docker is not installed; on Debian and its like: sudo apt-get install docker.io; {GUIDE}"
NO_COMPOSE = (
    "--docker: docker has no plugin `compose`, version 2; install docker-compose-plugin (Docker's packages),"
    f" docker-compose-v2 (Ubuntu) or docker-compose (Debian 13); {GUIDE}"
)
NO_DAEMON = "start it: sudo systemctl start docker"
NOT_ALLOWED = "you may not use it: sudo usermod -aG docker $USER, and log in again; whoever may is as good as root"
PROJECT_LABEL = "com.docker.compose.project"
MISHAP_FORMAT = "{{.RestartCount}} {{.State.OOMKilled}}"
ROOTLESS, DESKTOP = "name=rootless", "Docker Desktop"


class DockerError(ConfigurationError):
    """A command of docker failed; has what it said."""


class DaemonInformation(msgspec.Struct, frozen=True):
    """Of `docker info`, what is looked at."""

    cpus: int = msgspec.field(name="NCPU", default=0)
    memory_bytes: int = msgspec.field(name="MemTotal", default=0)
    system: str = msgspec.field(name="OperatingSystem", default="")
    limits_cpus: bool = msgspec.field(name="CpuCfsQuota", default=True)
    limits_memory: bool = msgspec.field(name="MemoryLimit", default=True)
    security: list[str] | None = msgspec.field(name="SecurityOptions", default=None)
    errors: list[str] | None = msgspec.field(name="ServerErrors", default=None)


async def docker(*arguments: str, stdin: bytes = b"") -> str:
    """Run `docker` with `arguments` to its end; returns what it printed.

    Raises:
        DockerError: it failed; with what it said.
    """
    # In a session of its own: Ctrl-C is for this program, which then takes the fleet down with docker's help.
    process = await asyncio.create_subprocess_exec(
        *bound([PROGRAM, *arguments]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate(stdin)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise DockerError(f"docker {' '.join(arguments)}: {last_line(errors.decode(errors='replace'))}")
    return output.decode(errors="replace").strip()


async def ready_host() -> Host:
    """What the daemon's machine has, once docker is found to be what a fleet needs.

    Raises:
        ConfigurationError: it is not; with what to do.
    """
    if shutil.which(PROGRAM) is None:
        raise ConfigurationError(NO_PROGRAM)
    try:
        compose = await docker("compose", "version", "--short")
    except DockerError as error:
        raise ConfigurationError(NO_COMPOSE) from error
    if compose.lstrip("v").startswith("1."):
        raise ConfigurationError(NO_COMPOSE)
    await _require_local()
    try:
        said = await docker("info", "--format", "{{json .}}")
    except DockerError as error:
        raise ConfigurationError(f"--docker: {why_unreachable(str(error))}") from error
    return host_of(said)


def host_of(said: str) -> Host:
    """What `docker info --format '{{json .}}'` says of the daemon's machine.

    Raises:
        ConfigurationError: there is no daemon, or it is of a kind that can't be used.
    """
    try:
        found = msgspec.json.decode(said, type=DaemonInformation)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"--docker: {why_unreachable(said)}") from error
    if not found.cpus:
        raise ConfigurationError(f"--docker: {why_unreachable(' '.join(found.errors or ()))}")
    if ROOTLESS in (found.security or ()):
        raise ConfigurationError(
            "--docker: this daemon is rootless: its accounts are none of this machine; use another"
        )
    if found.system == DESKTOP:
        raise ConfigurationError("--docker: Docker Desktop runs in another machine; use the Docker Engine of Linux")
    return Host(found.cpus, found.memory_bytes // MIB, found.limits_cpus, found.limits_memory)


def why_unreachable(said: str) -> str:
    """Why the daemon does not answer, in words with the remedy, from what docker said."""
    remedy = NOT_ALLOWED if "permission denied" in said.lower() else NO_DAEMON
    return f"the Docker daemon can't be reached; {remedy}. docker said: {last_line(said)}"


def last_line(said: str) -> str:
    """Of what docker said: the error comes behind all that went well."""
    lines = said.strip().splitlines()
    return lines[-1] if lines else "nothing"


async def require_images(images: Mapping[str, str]) -> None:
    """Whether there is an image for each target of docker/Dockerfile.

    Raises:
        ConfigurationError: naming those that are missing, with the commands that build them.
    """
    found = await asyncio.gather(*map(_has_image, images.values()))
    if all(found):
        return
    missing = {target: image for (target, image), has in zip(images.items(), found, strict=True) if not has}
    builds = "".join(
        f"\n  docker build -f docker/Dockerfile --target {target} -t {image} ." for target, image in missing.items()
    )
    raise ConfigurationError(f"--docker: no image {', '.join(missing.values())}; in a checkout of edgeflock:{builds}")


async def require_none_up(project: str, compose_file: str) -> None:
    """Whether a fleet of this name is down.

    Raises:
        ConfigurationError: it is up, or parts of it are left; with how to take them down.
    """
    label = f"label={PROJECT_LABEL}={project}"
    if await docker("ps", "--all", "--quiet", "--filter", label):
        raise ConfigurationError(
            "--docker: a fleet of this folder is up; wait for its end, or:"
            f" docker compose -f {compose_file} down --volumes"
        )


def mishaps(services: Sequence[str], said: str) -> Iterator[str]:
    """What befell services by itself, in words, from what `docker inspect` said of each in `MISHAP_FORMAT`."""
    for service, line in zip(services, said.splitlines(), strict=True):
        restarts, out_of_memory = line.split()
        if out_of_memory == "true":
            yield f"{service} ran out of memory"
        if int(restarts):
            yield f"{service} ended by itself, and Docker started it again, {restarts} times"


async def _require_local() -> None:
    """Containers share folders and sockets with this program."""
    endpoint = os.environ.get("DOCKER_HOST") or await docker(
        "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
    )
    if not endpoint.startswith("unix://"):
        raise ConfigurationError(
            f"--docker: the daemon is at {endpoint}; it has to be on this machine (unset DOCKER_HOST)"
        )


async def _has_image(image: str) -> bool:
    try:
        await docker("image", "inspect", "--format", "{{.Id}}", image)
    except DockerError:
        return False
    return True
