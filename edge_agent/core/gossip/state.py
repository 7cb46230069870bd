"""What a device keeps of its gossip between rounds, as bytes: the agent reads of it what is no matter of numbers. Pure.

Vectors are float32 in bytes, packed ones are for `fleet_protocol.codec`.
"""

from typing import Final

import msgspec

from edge_agent.core.gossip.numbering import Reached
from fleet_protocol.kinds import Told

LAYOUT: Final = 1
"""Of what is written. Another one is not read, and the device begins another life."""
FLOAT_BYTES: Final = 4
ROOM_FOR_A_COPY: Final = 1024
"""Bytes beside a neighbour's values: its name, its lives, numbers."""
ROOM_FOR_A_STATE: Final = 4096
"""Bytes beside all vectors."""


def most_told_bytes(parameters: int) -> int:
    """The largest change or whole copy of a model, packed."""
    return FLOAT_BYTES * parameters + ROOM_FOR_A_COPY


class CopyState(msgspec.Struct, frozen=True, array_like=True):
    """The copy of a neighbour: `values` behind change `number` of `life`, taken in this device's round `at_round`.

    `distance` is that of this device's model from it, at the end of the last round.
    """

    life: int
    number: int
    at_round: int
    former: tuple[int, ...]
    values: bytes
    distance: float = 0.0

    @property
    def reached(self) -> Reached:
        """How far the neighbour is known."""
        return Reached(self.life, self.number, self.former)


class PeerState(msgspec.Struct, frozen=True, array_like=True):
    """A device's own `model`, its public copy `whole` (packed) behind change `number` of its `life`, told in its round
    `told_at`, and its neighbours'. `change` is the last one, packed; empty where neighbours need the whole copy.
    """

    layout: int
    life: int
    number: int
    told_at: int
    rounds: int
    usual_norm: float
    model: bytes
    whole: bytes
    change: bytes
    copies: dict[str, CopyState]

    @property
    def last_told(self) -> Told | None:
        """What was told last, for those who have not heard it; None before the first."""
        if not self.number:
            return None
        return Told(self.life, self.number, self.change) if self.change else self.whole_copy

    @property
    def whole_copy(self) -> Told:
        """The public copy, for a neighbour that lacks a change."""
        return Told(self.life, self.number, self.whole, whole=True)


_STATES = msgspec.msgpack.Decoder(PeerState)


def write_state(state: PeerState) -> bytes:
    """The bytes of a state."""
    return msgspec.msgpack.encode(state)


def read_state(kept: bytes, parameters: int) -> PeerState | None:
    """A state that was kept, of a model of so many parameters; None where there is none that can be used."""
    if not kept:
        return None
    try:
        state = _STATES.decode(kept)
    except msgspec.MsgspecError:
        return None
    size = FLOAT_BYTES * parameters
    fits = len(state.model) == size and all(len(copy.values) == size for copy in state.copies.values())
    return state if state.layout == LAYOUT and state.life > 0 and fits else None


def most_state_bytes(parameters: int, neighbours: int) -> int:
    """The largest state of a device with so many neighbours: its model, its packed copy, its change, and theirs."""
    return (neighbours + 3) * most_told_bytes(parameters) + ROOM_FOR_A_STATE
