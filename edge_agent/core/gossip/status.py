"""What people and programs on a device see of a task that it learns among neighbours."""

import msgspec


class NeighbourStatus(msgspec.Struct, frozen=True):
    """One neighbour. `seconds_ago`: since its last change came, None where none has since the agent's start.

    `rounds_ago`: of this device, None where nothing is known of it yet. `distance` is that of this device's model from
    what is known of it, at the end of this device's last round.
    """

    seconds_ago: float | None
    rounds_ago: int | None
    distance: float | None


class GossipStatus(msgspec.Struct, frozen=True):
    """Of `devices` in the roster with that `number`; 0 where none has come. `changes` counts what this device has told
    in its present life. `refused` counts since the start what came and was not taken, by reason. `why_not` says why it
    trains nothing now; empty where it does. `is_complete`: all files of the bundle are here, and with the roster no
    coordinator is needed.
    """

    number: int
    devices: int
    rounds: int
    changes: int
    neighbours: dict[str, NeighbourStatus]
    refused: dict[str, int]
    why_not: str = ""
    is_complete: bool = False
