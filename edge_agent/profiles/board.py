"""Which profile fits a machine, and where one doesn't. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.profiles.profile import Limits, Profile, excesses

LEAST_SEEN = 0.75
"""Of the memory that a maker states, Linux sees at least this share: 416 of 512 MiB on a Pi Zero 2 W."""


@dataclass(frozen=True, slots=True)
class Board:
    """A machine: `model` as its device tree says, empty without one; memory in MiB as Linux sees it."""

    model: str
    cpu: str
    cores: int
    memory_mib: float


def misfits(name: str, profile: Profile, limits: Limits, board: Board) -> list[str]:
    """Why a profile, and the limits that came of it and of agent.toml, are not for this machine."""
    found = excesses(limits, board.cores, board.memory_mib, "this machine")
    if profile.device.memory_mib * LEAST_SEEN > board.memory_mib:
        found.append(
            f"profile {name} is for a device with {profile.device.memory_mib} MiB, this machine has"
            f" {board.memory_mib:.0f}; choose a smaller one, or have `edge-agent measure` write one"
        )
    return found


def best_fitting(board: Board, profiles: Mapping[str, Profile]) -> str:
    """Of the profiles (by name) whose model this board is and whose memory it has, the most exact; else `generic`."""
    fitting = [
        (len(profile.device.model), profile.device.memory_mib, name)
        for name, profile in profiles.items()
        if profile.device.model
        and board.model.startswith(profile.device.model)
        and profile.device.memory_mib * LEAST_SEEN <= board.memory_mib
    ]
    return max(fitting, default=(0, 0, "generic"))[-1]
