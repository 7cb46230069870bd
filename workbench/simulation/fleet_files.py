"""Where a simulated fleet comes from: the profiles that ship, files like them, or a trace with a line per device."""

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.core.guards import GuardSettings
from edge_agent.profiles import Profile
from fleet_protocol.document_errors import explain
from fleet_protocol.errors import ConfigurationError
from workbench.simulation.conditions import Conditions, FleetMember, draw_member


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
                f"trace {path}, line {number}: {explain(error, Conditions, row)};"
                f" the columns are {', '.join(Conditions.__struct_fields__)}"
            ) from error
    return members
