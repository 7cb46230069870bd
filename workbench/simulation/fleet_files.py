"""Where a simulated fleet comes from: the profiles that ship, files like them, or a trace with a line per device."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import msgspec
import numpy as np

from edge_agent.core.guards import GuardSettings
from edge_agent.profiles import Profile
from fleet_protocol.document_errors import explain
from fleet_protocol.errors import ConfigurationError
from workbench.simulation.conditions import DRAWN, Conditions, FleetMember, Kind, draw_conditions


class DrawnFleet(Sequence[FleetMember]):
    """See `draw_fleet`. What is drawn is kept in an array, and a device is made of it when it is looked at."""

    def __init__(self, profiles: Sequence[Profile], devices: int, seed: int) -> None:
        self._kinds = [Kind.of(profile) for profile in profiles]
        self._drawn = np.empty((devices, DRAWN), np.float64)
        for device in range(devices):
            self._drawn[device] = draw_conditions(np.random.default_rng((seed, device)))

    def __len__(self) -> int:
        return len(self._drawn)

    @overload
    def __getitem__(self, device: int) -> FleetMember: ...
    @overload
    def __getitem__(self, device: slice) -> Sequence[FleetMember]: ...
    def __getitem__(self, device: int | slice) -> FleetMember | Sequence[FleetMember]:
        """A device, or some."""
        if isinstance(device, slice):
            return [self[each] for each in range(len(self))[device]]
        number = range(len(self))[device]
        return self._kinds[number % len(self._kinds)].member(*self._drawn[number].tolist())


def draw_fleet(profiles: Sequence[Profile], devices: int, seed: int) -> Sequence[FleetMember]:
    """As many devices of each profile as of the others, each drawn from its own number and `seed`."""
    return DrawnFleet(profiles, devices, seed)


def read_trace(path: Path) -> list[FleetMember]:
    """The devices of a CSV file: a header with the fields of `Conditions`, then a line for each device.

    Raises:
        ConfigurationError: it can't be read, or names the line and the field that is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a byte order mark
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"trace {path}: can't be read: {error}") from error
    if not rows:
        raise ConfigurationError(f"trace {path}: no line with a device")
    if twice := [name for name, times in Counter(reader.fieldnames).items() if times > 1]:
        raise ConfigurationError(f"trace {path}: the column {twice[0]!r} is there twice; leave one out")
    members = []
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise ConfigurationError(
                f"trace {path}, line {number}: more values than the {len(row) - 1} columns of the header"
            )
        try:
            members.append(FleetMember(msgspec.convert(row, Conditions, strict=False), GuardSettings()))
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                f"trace {path}, line {number}: {explain(error, Conditions, row)};"
                f" the columns are {', '.join(Conditions.__struct_fields__)}"
            ) from error
    return members
