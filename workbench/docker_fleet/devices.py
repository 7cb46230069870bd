"""The devices of a fleet file, each by its name and with its profile."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.profiles import Profile
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_NAME_CHARACTERS
from workbench.docker_fleet.names import SERVICES
from workbench.fleet_description import DeviceGroup, FleetFile, groups_of_devices, kind_of

GUIDE = "docs/fleet-in-docker.md"

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A device that is to be started; `kind` is its profile's name."""

    name: str
    kind: str
    profile: Profile


def plan_devices(fleet: FleetFile, path: Path) -> list[PlannedDevice]:
    """The devices of the file at `path`, those of `[[devices]]` first; paths of profiles start at its folder.

    Raises:
        ConfigurationError: there are none, two have one name, one has a name that no container can have, or a profile
            is wrong.
    """
    devices = []
    for group, profile in groups_of_devices(fleet, path):
        kind = kind_of(group)
        devices += [PlannedDevice(name, kind, profile) for name in _names(group, kind)]
    if not devices:
        raise ConfigurationError(f"{path}: no [[devices]]; write one for each kind of device: {GUIDE}")
    for name, times in Counter(device.name for device in devices).items():
        if times > 1:
            raise ConfigurationError(f"{path}: {times} devices are called {name}; give one group another `name`")
        if name in SERVICES or not _HOST_NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
            raise ConfigurationError(
                f"{path}: no device can be called {name!r}: write a `name` of a-z, 0-9, '-' and '_' that begins and"
                f" ends with a-z or 0-9, has with its number at most {MAX_NAME_CHARACTERS} characters, and is none of"
                f" the services' {', '.join(SERVICES)}"
            )
    return devices


def _names(group: DeviceGroup, kind: str) -> Iterator[str]:
    base = group.name or kind
    yield from [base] if group.count == 1 else (f"{base}-{number}" for number in range(1, group.count + 1))
