"""Where a simulated fleet comes from: the profiles that ship, files like them, or a trace with a line per device."""

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.configuration import GuardSettings
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from workbench.simulation.conditions import Conditions, FleetMember, Profile, draw_member

_PACKAGE = Path(__file__).resolve().parents[1]
ROOTS = (_PACKAGE / "firmware_profiles", _PACKAGE.parent / "firmware_profiles")
"""In an installed wheel, and in a checkout."""


def read_profile(name: str) -> Profile:
    """A profile by its name, such as `pi-4`, or by the path of its file.

    Raises:
        ConfigurationError: there is none, or it is wrong; the message lists those that ship.
    """
    for path in (Path(name), *(root / f"{name}.toml" for root in ROOTS)):
        if path.is_file():
            return parse_document(path.read_bytes(), Profile, str(path))
    shipped = sorted({path.stem for root in ROOTS for path in root.glob("*.toml")})
    raise ConfigurationError(f"profile {name}: no such file; edgeflock ships {', '.join(shipped)}")


def draw_fleet(profiles: Sequence[Profile], devices: int, seed: int) -> list[FleetMember]:
    """`devices` devices, of each profile as many as of the others. Each is drawn from its own number and `seed`."""
    return [
        draw_member(profiles[device % len(profiles)], np.random.default_rng((seed, device)))
        for device in range(devices)
    ]


def read_trace(path: Path) -> list[FleetMember]:
    """The devices of a CSV file: a header with the fields of `Conditions`, then a line for each device.

    Raises:
        ConfigurationError: it can't be read, or names the line and the field that is wrong.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"trace {path}: can't be read: {error}") from error
    if not rows:
        raise ConfigurationError(f"trace {path}: no line with a device")
    members = []
    for number, row in enumerate(rows, start=2):
        try:
            members.append(FleetMember(msgspec.convert(row, Conditions, strict=False), GuardSettings()))
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                f"trace {path}, line {number}: {error}; the columns are {', '.join(Conditions.__struct_fields__)}"
            ) from error
    return members
