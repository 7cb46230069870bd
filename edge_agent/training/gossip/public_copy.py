"""What is publicly known of a device's model, and how whoever holds it keeps it. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_agent.core.gossip.numbering import Reached
from edge_agent.core.gossip.state import CopyState
from fleet_protocol.codec import SparseUpdate, decode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.kinds import Told
from fleet_protocol.task_description import TaskDescription

MOST_CHANGES: Final = 32
"""Of a neighbour, behind values that are written: each is added again when the next round begins."""


@dataclass(frozen=True, slots=True)
class PublicCopy:
    """`values` f32[P], behind the change that is `reached`. `at_round`: of whoever holds it, when it changed."""

    reached: Reached
    values: FloatVector
    at_round: int


@dataclass(frozen=True, slots=True)
class NeighbourCopy:
    """A neighbour's, with how it is kept: `base` f32[P], and the packed `changes` that make its values of that. So a
    change costs the card no more than its own bytes, until changes have half of the bytes of the values.
    """

    public: PublicCopy
    base: FloatVector
    changes: tuple[bytes, ...] = ()

    @property
    def reached(self) -> Reached:
        """How far it is known."""
        return self.public.reached

    @property
    def values(self) -> FloatVector:
        """Its model f32[P], as far as that is known."""
        return self.public.values

    @property
    def at_round(self) -> int:
        """When it changed, in rounds of whoever holds it."""
        return self.public.at_round

    @staticmethod
    def of(state: CopyState, task: TaskDescription) -> "NeighbourCopy":
        """As it was kept.

        Raises:
            ProtocolError: a change is damaged.
        """
        base = np.frombuffer(state.values, np.float32)
        values = base.copy() if state.changes else base
        for change in state.changes:
            decode_update(change, task.shapes).add_to(values)
        return NeighbourCopy(PublicCopy(state.head.reached, values, state.head.at_round), base, state.changes)

    def after(self, told: Told, update: SparseUpdate, begun: FloatVector, at_round: int) -> "NeighbourCopy":
        """Once `told`, which is `update`, is taken: its values may be finite no more. `begun` f32[P] are the weights
        that each life begins with.
        """
        is_anew = told.whole or self.reached.begins_anew(told)
        before = begun if self.reached.begins_anew(told) else self.values
        values = np.zeros_like(before) if told.whole else before.copy()
        with np.errstate(over="ignore"):
            update.add_to(values)
        public, changes = PublicCopy(self.reached.after(told), values, at_round), (*self.changes, told.packed)
        if is_anew or len(changes) > MOST_CHANGES or 2 * sum(map(len, changes)) > values.nbytes:
            return NeighbourCopy(public, values)
        return NeighbourCopy(public, self.base, changes)
