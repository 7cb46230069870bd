"""`fleet.toml`: the devices of a fleet, as cards to flash, as containers to try them in, and to plan for."""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.profiles import Profile, read_profile
from edge_agent.profiles.files import names_a_file
from fleet_protocol.configuration import Name, Seconds, Text, convert_document, parse_document
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
    """All uses of the file; each command takes the tables that are for it."""

    defaults: dict[str, object] = {}
    """Of `[[cards]]`: what all of them have in common."""
    cards: list[dict[str, object]] = []
    """Devices to flash (docs/flash.md). `name` and `profile` also make each a container."""
    devices: list[DeviceGroup] = []
    """Devices in containers, and to plan for."""
    helpers: list[DeviceGroup] = []
    """Machines that run blocks of a model for devices too weak for them (docs/split-learning.md)."""
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


def groups_of_devices(fleet: FleetFile, path: Path) -> Iterator[tuple[DeviceGroup, Profile]]:
    """The devices of the file at `path` with their profiles, those of `[[devices]]` first; a card is a group of one.

    Raises:
        ConfigurationError: naming the group whose profile is wrong.
    """
    return _with_profiles(chain(_numbered(fleet.devices, f"{path}: [[devices]]"), _cards(fleet, path)), path)


def groups_of_helpers(fleet: FleetFile, path: Path) -> Iterator[tuple[DeviceGroup, Profile]]:
    """The machines of `[[helpers]]` with their profiles.

    Raises:
        ConfigurationError: naming the group whose profile is wrong.
    """
    return _with_profiles(_numbered(fleet.helpers, f"{path}: [[helpers]]"), path)


def kind_of(group: DeviceGroup) -> str:
    """What a group's profile is called."""
    return Path(group.profile).stem if names_a_file(group.profile) else group.profile


def _numbered(groups: Iterable[DeviceGroup], table: str) -> Iterator[tuple[str, DeviceGroup]]:
    """With where each stands in the file."""
    for number, group in enumerate(groups, 1):
        yield f"{table} {number}", group


def _cards(fleet: FleetFile, path: Path) -> Iterator[tuple[str, DeviceGroup]]:
    for number, card in enumerate(fleet.cards, 1):
        where = f"{path}: card {number}"
        said = {**fleet.defaults, **card}
        document: dict[str, object] = {key: said[key] for key in ("name", "profile") if key in said}
        yield where, convert_document(document, DeviceGroup, where)


def _with_profiles(named: Iterable[tuple[str, DeviceGroup]], path: Path) -> Iterator[tuple[DeviceGroup, Profile]]:
    """Paths of profiles start at the folder of the fleet's file."""
    profile_of = cache(read_profile)
    for where, group in named:
        located = str(path.parent / group.profile) if names_a_file(group.profile) else group.profile
        try:
            yield group, profile_of(located)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
