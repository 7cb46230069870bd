"""The compose file of a fleet: broker, coordinator, disks, and a container for each device. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from workbench.docker_fleet.devices import PlannedDevice
from workbench.docker_fleet.limits import DISK_MIB, Host, limits_of
from workbench.docker_fleet.names import (
    BROKER,
    COORDINATOR,
    DISKS,
    DISKS_FOLDER,
    FLEET_NETWORK,
    OPERATOR_NETWORK,
    FleetNames,
)

IMAGES: Mapping[str, str] = {
    "agent": "edgeflock-agent",
    "coordinator": "edgeflock-coordinator",
    "network": "edgeflock-network",
}
"""By their target in docker/Dockerfile."""
BROKER_PORT = 1883
"""Inside its container."""
BUNDLE_FOLDER = "/bundle"
COORDINATOR_FOLDER = "/etc/broker-coordinator"
"""Settings, key and database lie together; the programs in the image look for settings here."""
STATE_FOLDER = "/var/lib/edge-agent"
SETTINGS_FOLDER = "/etc/edge-agent"
SOCKET_FOLDER = "/run/edge-agent"
SOCKET_FILE = "samples.sock"
TEMPORARY = "/tmp:size=16m,mode=1777"  # noqa: S108 - in a container of its own
STOP_SECONDS = 30
"""A device with a quarter of a core may take so long to end in order."""


class BindMount(msgspec.Struct, frozen=True):
    """A folder of the host in a container."""

    source: str
    target: str
    type: Literal["bind"] = "bind"
    read_only: bool = False


class VolumeOptions(msgspec.Struct, frozen=True):
    """`nocopy`: the volume stays as it is, or it would get the owner of the image's folder."""

    nocopy: Literal[True] = True


class VolumeMount(msgspec.Struct, frozen=True):
    """A volume in a container."""

    source: str
    target: str
    type: Literal["volume"] = "volume"
    volume: VolumeOptions = VolumeOptions()


class Service(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A container. Its root can't be written, and it has no right that its account hasn't."""

    image: str
    container_name: str
    user: str
    networks: Sequence[str]
    hostname: str | None = None
    entrypoint: Sequence[str] | None = None
    command: Sequence[str] | None = None
    ports: Sequence[str] = ()
    volumes: Sequence[BindMount | VolumeMount] = ()
    tmpfs: Sequence[str] = ()
    cpus: float | None = None
    mem_limit: str | None = None
    memswap_limit: str | None = None
    healthcheck: Mapping[str, bool] | None = None
    stop_grace_period: str | None = None
    stop_signal: str | None = None
    read_only: Literal[True] | None = None
    cap_drop: Sequence[str] = ()
    security_opt: Sequence[str] = ()
    restart: str | None = None


class Network(msgspec.Struct, frozen=True, omit_defaults=True):
    """A network; from an internal one nothing reaches the outside."""

    internal: bool = False


class Volume(msgspec.Struct, frozen=True):
    """A volume of the daemon's own driver."""

    driver_opts: Mapping[str, str]
    driver: str = "local"


class Compose(msgspec.Struct, frozen=True):
    """The whole file."""

    name: str
    services: Mapping[str, Service]
    networks: Mapping[str, Network]
    volumes: Mapping[str, Volume]


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of the host, and the account that owns them and runs every container."""

    broker: Path
    """Has the broker's configuration, `mosquitto.conf`."""
    coordinator: Path
    devices: Path
    """Has a folder for each device."""
    sockets: Path
    """Has one too: paths of sockets are short."""
    bundle: Path
    user: int
    group: int


def compose(
    names: FleetNames, devices: Sequence[PlannedDevice], host: Host, places: Places, broker_port: int
) -> Compose:
    """The file of a fleet; `broker_port` is on the host's 127.0.0.1."""
    services = {
        BROKER: _broker(names, places, broker_port),
        COORDINATOR: _coordinator(names, places),
        DISKS: _disks(names, devices, places),
        **{device.name: _device(names, device, host, places) for device in devices},
    }
    disk = Volume(
        {"type": "tmpfs", "device": "tmpfs", "o": f"size={DISK_MIB}m,mode=0700,uid={places.user},gid={places.group}"}
    )
    return Compose(
        names.project,
        services,
        {FLEET_NETWORK: Network(internal=True), OPERATOR_NETWORK: Network()},
        {names.disk(device.name): disk for device in devices},
    )


def as_yaml(document: Compose) -> bytes:
    """The file. A `$` would name a variable, so each is written twice."""
    text = msgspec.json.encode(document).decode().replace("$", "$$")
    return msgspec.yaml.encode(msgspec.json.decode(text))


def _service(names: FleetNames, name: str, image: str, places: Places) -> Service:
    """What all have in common."""
    return Service(
        image=IMAGES[image],
        container_name=names.container(name),
        hostname=name,
        user=f"{places.user}:{places.group}",
        networks=[FLEET_NETWORK],
        tmpfs=[TEMPORARY],
        stop_grace_period=f"{STOP_SECONDS}s",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        restart="unless-stopped",
    )


def _broker(names: FleetNames, places: Places, port: int) -> Service:
    return msgspec.structs.replace(
        _service(names, BROKER, "network", places),
        command=["mosquitto", "-c", "/etc/edgeflock/mosquitto.conf"],
        networks=[FLEET_NETWORK, OPERATOR_NETWORK],
        ports=[f"127.0.0.1:{port}:{BROKER_PORT}"],
        volumes=[BindMount(str(places.broker), "/etc/edgeflock", read_only=True)],
    )


def _coordinator(names: FleetNames, places: Places) -> Service:
    return msgspec.structs.replace(
        _service(names, COORDINATOR, "coordinator", places),
        volumes=[
            BindMount(str(places.coordinator), COORDINATOR_FOLDER),
            BindMount(str(places.bundle), BUNDLE_FOLDER, read_only=True),
        ],
    )


def _disks(names: FleetNames, devices: Sequence[PlannedDevice], places: Places) -> Service:
    """Holds every device's disk, so that it outlives the device's container; does nothing."""
    return msgspec.structs.replace(
        _service(names, DISKS, "agent", places),
        entrypoint=["sleep", "infinity"],
        command=[],
        volumes=[VolumeMount(names.disk(device.name), str(DISKS_FOLDER / device.name)) for device in devices],
        healthcheck={"disable": True},
        stop_signal="SIGKILL",
    )


def _device(names: FleetNames, device: PlannedDevice, host: Host, places: Places) -> Service:
    held = limits_of(device, host)
    return msgspec.structs.replace(
        _service(names, device.name, "agent", places),
        cpus=held.cpus,
        mem_limit=f"{held.memory_mib}m",
        memswap_limit=f"{held.memory_mib}m",
        volumes=[
            BindMount(str(places.devices / device.name), SETTINGS_FOLDER, read_only=True),
            BindMount(str(places.sockets / device.name), SOCKET_FOLDER),
            VolumeMount(names.disk(device.name), STATE_FOLDER),
        ],
    )
