"""The shipped device profiles, and how to read one."""

from pathlib import Path

import msgspec

from edge_agent.configuration import StoreSettings
from edge_agent.core.guards import GuardSettings
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.bundle import PositiveFloat, PositiveInt
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent
FOLDERS = (_PACKAGE / "firmware_profiles", _PACKAGE.parent / "firmware_profiles")
"""In an installed wheel, and in a checkout."""


class SimulationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[simulation]` of a profile: medians over devices of this kind. `speed_spread` is a lognormal's sigma."""

    training_mflops: PositiveFloat
    start_seconds: PositiveFloat
    uplink_kbit_s: PositiveFloat
    downlink_kbit_s: PositiveFloat
    latency_ms: PositiveFloat
    samples_per_hour: PositiveFloat
    speed_spread: float = 0.2
    online_hours: PositiveFloat = 24.0
    crashes_per_day: float = 0.0
    restart_seconds: PositiveFloat = 60.0


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[device]` of a profile: what a board has."""

    cores: PositiveInt
    memory_mib: PositiveInt
    cpu: str


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of `firmware_profiles/`: the board, what a simulation assumes of it, and three tables of agent.toml."""

    device: Board
    simulation: SimulationSettings
    guards: GuardSettings
    worker: WorkerSettings
    store: StoreSettings


def read_profile(name: str) -> Profile:
    """A profile by its name, such as `pi-4`, or by the path of its file.

    Raises:
        ConfigurationError: there is none, or it is wrong; the message lists those that ship.
    """
    for path in (Path(name), *(folder / f"{name}.toml" for folder in FOLDERS)):
        if path.is_file():
            return parse_document(path.read_bytes(), Profile, str(path))
    raise ConfigurationError(f"profile {name}: no such file; edgeflock ships {', '.join(shipped_profiles())}")


def shipped_profiles() -> list[str]:
    """Their names."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.toml")})
