"""`fleet.toml`: the devices of a fleet, as cards to flash and as containers to try them in."""

from pathlib import Path
from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name, Seconds, Text, parse_document
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MIB

MAX_FILE_BYTES = 4 * MIB
"""Thousands of cards."""

MAX_GROUP = 1000
"""Devices of one kind; a network of Docker has room for about as many."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class DeviceGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices of one kind, each in a container of its own."""

    profile: Text
    """One that edgeflock ships, or the path of a file, from this file's folder, that ends in `.toml`."""
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_GROUP)] = 1
    """How many."""
    name: Name | None = None
    """What they are called, with `-1` and so on where there are several; left out: as their profile."""


class DockerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run of the fleet in containers."""

    faults: list[Text] = []
    """What happens to the fleet, such as `"pause kitchen-3 after 20 s for 15 s"`."""
    deliver_seconds: Seconds = 90.0
    """In seconds: over so long every device is given its samples."""
    longest_seconds: Seconds = 600.0
    """In seconds: then the run ends, although updates wait."""
    broker_port: Port | None = None
    """On 127.0.0.1, where the fleet is watched; left out: one that is free."""


class FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both uses of the file; each command takes the tables that are for it."""

    defaults: dict[str, object] = {}
    """Of `[[cards]]`: what all of them have in common."""
    cards: list[dict[str, object]] = []
    """Devices to flash (docs/flash.md). `name` and `profile` also make each a container."""
    devices: list[DeviceGroup] = []
    """Devices in containers alone."""
    docker: DockerSettings = DockerSettings()


def read_description(path: Path, guide: str) -> FleetFile:
    """The file at `path`; `guide` says how to write one.

    Raises:
        ConfigurationError: it can't be read, or naming the key and what was expected there.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, f'write one: {guide}')}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path}: over {MAX_FILE_BYTES} bytes, the limit; name a fleet.toml, not an image")
    return parse_document(content, FleetFile, str(path))
