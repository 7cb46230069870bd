"""The devices and helpers of a fleet file, as a plan takes them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edge_agent.profiles import Profile, read_profile
from fleet_protocol.errors import ConfigurationError
from workbench.fleet_description import FleetFile, groups_of_devices, groups_of_helpers, kind_of
from workbench.split_planning.cut_options import Machine, machine_of


@dataclass(frozen=True, slots=True)
class Kind:
    """So many devices of one profile."""

    name: str
    profile: Profile
    count: int


@dataclass(frozen=True, slots=True)
class PlannedFleet:
    """The kinds of devices, and each helper."""

    kinds: list[Kind]
    helpers: list[Machine]


def planned_fleet(fleet: FleetFile, path: Path, helpers: int | None, helper_profile: str) -> PlannedFleet:
    """The fleet of the file at `path`. So many `helpers` of one profile take the place of its `[[helpers]]`.

    Raises:
        ConfigurationError: it has no devices, or a profile is wrong.
    """
    counts: Counter[str] = Counter()
    profiles: dict[str, Profile] = {}
    for group, profile in groups_of_devices(fleet, path):
        counts[kind_of(group)] += group.count
        profiles[kind_of(group)] = profile
    if not counts:
        raise ConfigurationError(f"{path}: no [[devices]]; write one for each kind of device: docs/split-learning.md")
    if helpers is None:
        machines = [
            machine_of(profile) for group, profile in groups_of_helpers(fleet, path) for _ in range(group.count)
        ]
    else:
        machines = [machine_of(read_profile(helper_profile))] * helpers
    return PlannedFleet([Kind(name, profiles[name], count) for name, count in counts.items()], machines)
