"""What a device keeps of its gossip between rounds, as parts: the agent reads those that it needs. Pure.

Each part is a row of agent.db, and what a round has not changed is not written again: of a neighbour that has told a
change, the change, and its values once in a while. Vectors are float32 in bytes, packed ones are for
`fleet_protocol.codec`.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from edge_agent.core.gossip.numbering import Reached
from fleet_protocol.kinds import Told

LAYOUT: Final = 2
"""Of what is written. Another one is not read, and the device begins another life."""
FLOAT_BYTES: Final = 4
ROOM_FOR_A_COPY: Final = 1024
"""Bytes beside a neighbour's values: its name, its lives, numbers."""
ROOM_FOR_A_STATE: Final = 4096
"""Bytes beside all vectors."""
HEAD: Final = "head"
MODEL: Final = "model"
WHOLE: Final = "whole"
CHANGE: Final = "change"
"""The parts that there is one of; those of neighbours are `values_part` and `change_part`."""
Parts = Mapping[str, bytes]
"""By name. In what a round has changed, an empty one is there no more."""


def values_part(name: str) -> str:
    """A neighbour's values."""
    return f"values/{name}"


def change_part(name: str, number: int) -> str:
    """What a neighbour has told behind those."""
    return f"change/{name}/{number}"


def most_told_bytes(parameters: int) -> int:
    """The largest change or whole copy of a model, packed."""
    return FLOAT_BYTES * parameters + ROOM_FOR_A_COPY


class CopyHead(msgspec.Struct, frozen=True, array_like=True):
    """The copy of a neighbour behind change `number` of `life`, taken in this device's round `at_round`: its values,
    and the last `changes` changes behind them. `distance` is that of this device's model from it, at the end of the
    last round.
    """

    life: int
    number: int
    at_round: int
    former: tuple[int, ...]
    changes: int
    distance: float = 0.0

    @property
    def reached(self) -> Reached:
        """How far the neighbour is known."""
        return Reached(self.life, self.number, self.former)

    def parts(self, name: str) -> list[str]:
        """The names of its parts: values, then changes in their order."""
        numbers = range(self.number - self.changes + 1, self.number + 1)
        return [values_part(name), *(change_part(name, number) for number in numbers)]


class PeerHead(msgspec.Struct, frozen=True, array_like=True):
    """A device in its `life`, which has told change `number` last, in its round `told_at`, and the copies that it has
    of its neighbours.
    """

    layout: int
    life: int
    number: int
    told_at: int
    rounds: int
    usual_norm: float
    copies: dict[str, CopyHead]


class CopyState(msgspec.Struct, frozen=True):
    """The copy of a neighbour: `values`, and packed `changes` behind them."""

    head: CopyHead
    values: bytes
    changes: tuple[bytes, ...] = ()


class PeerState(msgspec.Struct, frozen=True):
    """A device's own `model`, its public copy `whole` (packed), and its neighbours'. `change` is the last one, packed;
    empty where neighbours need the whole copy.
    """

    head: PeerHead
    model: bytes
    whole: bytes
    change: bytes
    copies: dict[str, CopyState]

    @property
    def last_told(self) -> Told | None:
        """What was told last, for those who have not heard it; None before the first."""
        return last_told(self.head, self.parts)

    @property
    def whole_copy(self) -> Told:
        """The public copy, for a neighbour that lacks a change."""
        return whole_copy(self.head, self.parts)

    @property
    def parts(self) -> dict[str, bytes]:
        """All of it, as it is kept."""
        parts = {HEAD: msgspec.msgpack.encode(self.head), MODEL: self.model, WHOLE: self.whole, CHANGE: self.change}
        for name, copy in self.copies.items():
            parts |= dict(zip(copy.head.parts(name), (copy.values, *copy.changes), strict=True))
        return parts


_HEADS = msgspec.msgpack.Decoder(PeerHead)


def last_told(head: PeerHead, parts: Parts) -> Told | None:
    """What was told last, for those who have not heard it; None before the first. Needs `CHANGE`, and where that is
    empty `WHOLE`.
    """
    if not head.number:
        return None
    change = parts.get(CHANGE)
    return Told(head.life, head.number, change) if change else whole_copy(head, parts)


def whole_copy(head: PeerHead, parts: Parts) -> Told:
    """The public copy, for a neighbour that lacks a change. Needs `WHOLE`."""
    return Told(head.life, head.number, parts[WHOLE], whole=True)


def read_head(kept: bytes, there: Collection[str]) -> PeerHead | None:
    """What is no matter of numbers, of parts of which those names are `there`; None where there is no state that can be
    used. A neighbour of which a part is lost is not known any more.
    """
    try:
        head = _HEADS.decode(kept)
    except msgspec.MsgspecError:
        return None
    if head.layout != LAYOUT or head.life <= 0 or not {MODEL, WHOLE} <= set(there):
        return None
    whole = {name: copy for name, copy in head.copies.items() if set(copy.parts(name)) <= set(there)}
    return msgspec.structs.replace(head, copies=whole)


def read_state(kept: Parts, parameters: int) -> PeerState | None:
    """A state that was kept, of a model of so many parameters; None where there is none that can be used."""
    head = read_head(kept.get(HEAD, b""), kept.keys())
    size = FLOAT_BYTES * parameters
    if head is None or len(kept[MODEL]) != size:
        return None
    copies = {}
    for name, copy in head.copies.items():
        values, *changes = (kept[part] for part in copy.parts(name))
        if len(values) != size:
            return None
        copies[name] = CopyState(copy, values, tuple(changes))
    return PeerState(head, kept[MODEL], kept[WHOLE], kept.get(CHANGE, b""), copies)


def changed_parts(before: Parts, after: Parts) -> dict[str, bytes]:
    """What is to be written for `after` to be kept in the place of `before`; empty ones are to go."""
    changed = {name: part for name, part in after.items() if before.get(name, b"") != part}
    return changed | dict.fromkeys(before.keys() - after.keys(), b"")


def most_state_bytes(parameters: int, neighbours: int) -> int:
    """The largest state of a device with so many neighbours: its model, its packed copy, its change, and of each
    neighbour the values and as much in changes.
    """
    return (2 * neighbours + 3) * most_told_bytes(parameters) + ROOM_FOR_A_STATE
