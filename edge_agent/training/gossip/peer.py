"""One device's part in gossip: its model, what its neighbours know of it, and what it knows of theirs. Pure.

CHOCO-SGD (Koloskova, Stich and Jaggi 2019, algorithm 2): neighbours hold a public copy c_j of each other's model, which
compressed differences keep up to date. A round of device i is

    x_i = train(x_i)
    q_i = compress(x_i - c_i),  c_i = c_i + q_i,  and q_i is sent
    x_i = x_i + gamma sum_j w_ij (c_j - c_i)

What compression leaves out stays in x_i - c_i: that is the error feedback, and no other is kept. Whole messages with
gamma = 1 make it D-PSGD (Lian et al. 2017). Nobody waits: a round mixes the copies as they are then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.training.compression import ENCODING_STREAM
from edge_agent.training.gossip.mixing import MIXING_RULES
from edge_agent.training.sending import running_norm, why_unchanged
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.gossip import Topology, consensus_step
from fleet_protocol.gossip_plan import MixingRule
from fleet_protocol.kinds import Told
from fleet_protocol.sending_plan import ALWAYS
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import WHOLE_UPDATES

MOST_LIVES: Final = 8
"""Former ones that are known of a neighbour: what was told in them is not taken again."""


class Heard(Enum):
    """What became of it."""

    TAKEN = auto()
    REPEATED = auto()
    """It is in the copy already: nothing is mixed twice."""
    LACKING = auto()
    """One before it is lacking: the whole copy is to be asked for."""


@dataclass(frozen=True, slots=True)
class PublicCopy:
    """What is publicly known of a device's model after so many changes: `values` f32[P]. `at_round`: of whoever holds
    it, when it changed. `former` are lives that the device had before this one.
    """

    life: int
    number: int
    values: FloatVector
    at_round: int
    former: tuple[int, ...] = ()


class Peer:
    """The device at `place` of a topology. Everybody begins with the same `model` f32[P]; `seed` draws what is random
    in compression. `life` is at least 1, and another one whenever a device has lost its state.
    """

    def __init__(
        self,
        task: TaskDescription,
        topology: Topology,
        place: int,
        model: FloatVector,
        *,
        rule: MixingRule,
        seed: int,
        life: int,
    ) -> None:
        self.model = model
        """What the device trains from, and answers with."""
        self.rounds = 0
        self.usual_norm = 0.0
        """The running mean of the norms of its rounds' changes; 0 before the first."""
        self._task = task
        self._topology = topology
        self._place = place
        self._mix = MIXING_RULES[rule]
        self._generator = np.random.default_rng((seed, place, ENCODING_STREAM))
        self._begun = model
        self._own = PublicCopy(life, 0, model, 0)
        self._copies = dict.fromkeys(topology.neighbours(place), PublicCopy(0, 0, model, 0))

    @property
    def neighbours(self) -> list[int]:
        """The places of those that it tells, and hears."""
        return list(self._copies)

    def learn(self, delta: FloatVector) -> None:
        """Training has changed the model by `delta` f32[P]."""
        self.model = self.model + delta
        norm = min(float(np.linalg.norm(delta.astype(np.float64))), self._task.largest_delta_norm)
        self.usual_norm = running_norm(self.usual_norm, norm)

    def tell(self) -> Told | None:
        """What neighbours are told at the end of a round; None where the model has moved too little since the last time
        for a task that sends what has `changed`. After half of the rounds that a silent one counts for it tells anyway.
        """
        difference = self.model - self._own.values
        silent_rounds = self.rounds - self._own.at_round
        is_missed = silent_rounds >= self._task.aggregation.max_staleness // 2
        moved = float(np.linalg.norm(difference))
        if not is_missed and why_unchanged(self._task.sending, moved, self.usual_norm):
            return None
        encoded = encode_update(difference, self._task.shapes, self._task.update, self._generator)
        values = self._own.values.copy()
        encoded.sent.add_to(values)
        self._own = PublicCopy(self._own.life, self._own.number + 1, values, self.rounds)
        return Told(self._own.life, self._own.number, encoded.packed)

    def whole(self) -> Told:
        """Its public copy, for a neighbour that lacks a change."""
        encoded = encode_update(self._own.values, self._task.shapes, WHOLE_UPDATES, self._generator)
        return Told(self._own.life, self._own.number, encoded.packed, whole=True)

    def hear(self, place: int, told: Told) -> Heard:
        """A neighbour has told something.

        Raises:
            ProtocolError: it is no neighbour's, no update of the task, or the copy would no longer be finite. Then the
                copy stays as it was.
        """
        copy = self._copies.get(place)
        if copy is None:
            raise ProtocolError(Reason.WRONG_RECIPIENT, f"place {place} of the roster is no neighbour of {self._place}")
        if told.life in copy.former:
            return Heard.REPEATED
        if told.life != copy.life:
            former = (*copy.former, copy.life)[-MOST_LIVES:]
            copy = PublicCopy(told.life, 0, self._begun, self.rounds, former)
        if told.number <= copy.number:
            return Heard.REPEATED
        if not told.whole and told.number != copy.number + 1:
            return Heard.LACKING
        update = decode_update(told.packed, self._task.shapes)
        values = np.zeros_like(copy.values) if told.whole else copy.values.copy()
        with np.errstate(over="ignore"):
            update.add_to(values)
        if not np.isfinite(values).all():
            raise ProtocolError(Reason.NOT_FINITE, f"the model of place {place} would no longer be finite")
        self._copies[place] = PublicCopy(copy.life, told.number, values, self.rounds, copy.former)
        return Heard.TAKEN

    def mix(self) -> None:
        """End the round: go towards the neighbours. Who has told nothing yet, or was silent for more rounds of this
        device than the task's `max_staleness`, does not count, and its weight is the device's own.
        """
        weights = {
            place: weight
            for place, weight in self._topology.weights(self._place, self.rounds).items()
            if self._counts(self._copies[place])
        }
        self.rounds += 1
        if weights:
            self.model = (self.model + self._move(weights)).astype(np.float32)

    def _counts(self, copy: PublicCopy) -> bool:
        return copy.number > 0 and self.rounds - copy.at_round <= self._task.aggregation.max_staleness

    def _move(self, weights: Mapping[int, float]) -> NDArray[np.float64]:
        """float64: differences of absurd numbers are no longer float32."""
        own = self._own.values.astype(np.float64)
        gamma = consensus_step(self._task)
        differences = [gamma * (self._copies[place].values - own) for place in weights]
        return self._mix(differences, list(weights.values()), self.usual_norm or self._task.largest_delta_norm)


def local_task(task: TaskDescription) -> TaskDescription:
    """The task as a round trains it that is not for a coordinator: what is learned comes whole, as `Peer.tell` decides
    what is sent, and compresses it.
    """
    return msgspec.structs.replace(task, update=WHOLE_UPDATES, sending=ALWAYS)
