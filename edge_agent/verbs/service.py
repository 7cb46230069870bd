"""`edge-agent install-service | uninstall-service`: the agent's units, and the limits of its worker."""

import argparse
from pathlib import Path

from edge_agent.configuration import CONFIGURATION, PROGRAM, load_configuration
from edge_agent.worker.settings import WorkerSettings
from fleet_host.services import UNITS, Installer, Service, installer_here, installer_of

WORKER_UNIT = "edge-agent-worker@.service"
SERVICE = Service(
    program=PROGRAM,
    package="edgeflock-agent",
    configured_by=f"{PROGRAM} join INVITATION",
    units=("edge-agent-worker.socket", WORKER_UNIT, "edge-agent.service"),
    enabled=("edge-agent.service",),
    configuration=CONFIGURATION,
    state=Path("/var/lib/edge-agent"),
)
SYSTEMD_RUNS = Path("/run/systemd/system")
LIMITS = UNITS / f"{WORKER_UNIT}.d" / "limits.conf"
LIBRARIES_MIB = 128
"""What `memory_limit_mib` does not count: the interpreter and libraries of the warm worker and of the round that it
forks, and files that the kernel keeps in memory.
"""
LIMITS_TEXT = """\
# Written by `edge-agent install-service` from [worker] in {configuration}; run it again after a change there.
[Service]
MemoryMax={memory}M
CPUQuota={processor}%
"""


def install_service(options: argparse.Namespace) -> None:
    """Install, or bring an installation up to date.

    Raises:
        ConfigurationError: something can't be written or run, or the configuration can't be used.
    """
    _install(installer_of(options))


def systemd_runs() -> bool:
    """Whether systemd is what started this machine."""
    return SYSTEMD_RUNS.exists()


def start_service() -> None:
    """Install it on this system, with the limits of the configuration that has just been written, and start it.

    Raises:
        ConfigurationError: something can't be written or run.
    """
    _install(installer_here())


def _install(installer: Installer) -> None:
    path = installer.root / SERVICE.configuration.relative_to("/")
    limits = worker_limits(load_configuration(path).worker) if path.exists() else ""
    installer.install(SERVICE, {LIMITS: limits})


def uninstall_service(options: argparse.Namespace) -> None:
    """Take it away again.

    Raises:
        ConfigurationError: something can't be deleted or run.
    """
    installer_of(options).uninstall(SERVICE, [LIMITS])


def worker_limits(worker: WorkerSettings) -> str:
    """The drop-in that keeps the worker's unit to what the configuration, and with it the profile, allows."""
    return LIMITS_TEXT.format(
        configuration=SERVICE.configuration,
        memory=worker.memory_limit_mib + LIBRARIES_MIB,
        processor=100 * worker.threads,
    )
