"""What a container may take of its host, from the profile of the device that it stands for. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet_protocol.errors import ConfigurationError
from workbench.docker_fleet.devices import PlannedDevice

HOST_CORE_MFLOPS = 3600.0
"""What a core of the host is taken to do in training, in the unit of a profile's `training_mflops`: by it a Pi Zero 2 W
is a quarter of a core. Neither is measured on a board."""
FEWEST_CPUS = 0.01
"""Docker takes no less."""
DISK_MIB = 64
"""Of a device, for what it keeps. It lies in memory: it goes with the fleet."""
LEAST_DEVICE_MIB = 96
"""What an agent and its worker take with the digits task, in MiB: 70 were the most in a container on x86-64."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that the daemon runs on. Old kernels can't hold containers to every limit."""

    cpus: int
    memory_mib: int
    limits_cpus: bool = True
    limits_memory: bool = True


@dataclass(frozen=True, slots=True)
class ContainerLimits:
    """`cpus` of the host's cores, as a share of their time; memory in MiB, without swap."""

    cpus: float
    memory_mib: int


def limits_of(device: PlannedDevice, host: Host) -> ContainerLimits:
    """Memory as the device's maker says; of the processors as many as train as fast as the profile says."""
    profile = device.profile
    wanted = min(profile.simulation.training_mflops / HOST_CORE_MFLOPS, profile.device.cores)
    return ContainerLimits(round(max(FEWEST_CPUS, min(wanted, host.cpus)), 2), profile.device.memory_mib)


def require_room(devices: Sequence[PlannedDevice], host: Host) -> None:
    """Refuse a fleet that the host has no memory for.

    Raises:
        ConfigurationError: with what it needs, what there is, and how many devices would do.
    """
    needed = sum(min(LEAST_DEVICE_MIB, device.profile.device.memory_mib) for device in devices)
    if needed > host.memory_mib:
        raise ConfigurationError(
            f"{len(devices)} devices need {needed} MiB of memory ({LEAST_DEVICE_MIB} each), and this machine has"
            f" {host.memory_mib}; take {host.memory_mib // LEAST_DEVICE_MIB} at most, or a larger machine"
        )


def remarks(devices: Sequence[PlannedDevice], host: Host) -> Iterator[str]:
    """What each kind is held to, and where the host makes it other than its profile says, in words."""
    kinds = Counter((device.kind, limits_of(device, host)) for device in devices)
    for (kind, held), number in kinds.items():
        yield f"{number} x {kind}: {held.cpus:g} of a core, {held.memory_mib} MiB"
    total = sum(limits_of(device, host).cpus for device in devices)
    if total > host.cpus:
        yield (
            f"they may take {total:.1f} cores together, and this machine has {host.cpus}: where many train at once,"
            " they are slower than their profiles say"
        )
    if (memory := sum(device.profile.device.memory_mib for device in devices)) > host.memory_mib:
        yield (
            f"they may take {memory} MiB together, and this machine has {host.memory_mib}: the digits task needs"
            f" {LEAST_DEVICE_MIB} of each"
        )
    if not host.limits_cpus:
        yield "this kernel can't hold containers to a share of a core (CONFIG_CFS_BANDWIDTH): all are as fast as it is"
    if not host.limits_memory:
        yield "this kernel can't hold containers to their memory (CONFIG_MEMCG): all have what this machine has"
