"""States of layout 1, which were one row in a table of the models that devices keep to themselves. Pure."""

from typing import Final

import msgspec

from edge_agent.core.gossip.state import LAYOUT, CopyHead, CopyState, PeerHead, PeerState

BEGINS_WITH: Final = b"\x9a\x01"
"""An array of ten, of which the first is the layout. What else was in that table may begin alike by chance."""


class _EarlierCopy(msgspec.Struct, frozen=True, array_like=True):
    life: int
    number: int
    at_round: int
    former: tuple[int, ...]
    values: bytes
    distance: float = 0.0

    def now(self) -> CopyState:
        """As it is kept today."""
        return CopyState(CopyHead(self.life, self.number, self.at_round, self.former, 0, self.distance), self.values)


class _EarlierState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    layout: int
    life: int
    number: int
    told_at: int
    rounds: int
    usual_norm: float
    model: bytes
    whole: bytes
    change: bytes
    copies: dict[str, _EarlierCopy]


_STATES = msgspec.msgpack.Decoder(_EarlierState)


def parts_of_layout_1(kept: bytes) -> dict[str, bytes] | None:
    """The parts of such a state; None where it is none."""
    try:
        state = _STATES.decode(kept)
    except msgspec.MsgspecError:
        return None
    copies = {name: copy.now() for name, copy in state.copies.items()}
    heads = {name: copy.head for name, copy in copies.items()}
    head = PeerHead(LAYOUT, state.life, state.number, state.told_at, state.rounds, state.usual_norm, heads)
    return PeerState(head, state.model, state.whole, state.change, copies).parts
