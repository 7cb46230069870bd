"""One device's part in gossip: its model, what its neighbours know of it, and what it knows of theirs. Pure.

CHOCO-SGD (Koloskova, Stich and Jaggi 2019, algorithm 2): neighbours hold a public copy c_j of each other's model, which
compressed differences keep up to date. A round of device i is

    x_i = train(x_i)
    q_i = compress(x_i - c_i),  c_i = c_i + q_i,  and q_i is sent
    x_i = x_i + gamma sum_j w_ij (c_j - c_i)

What compression leaves out stays in x_i - c_i: that is the error feedback, and no other is kept. Whole messages with
gamma = 1 make it D-PSGD (Lian et al. 2017). Nobody waits: a round mixes the copies as they are then.
"""

import contextlib
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.core.gossip.neighbours import Neighbours
from edge_agent.core.gossip.numbering import Heard, Reached
from edge_agent.core.gossip.state import LAYOUT, CopyHead, CopyState, PeerHead, PeerState
from edge_agent.core.gossip.talk import OwnStanding
from edge_agent.training.compression import ENCODING_STREAM
from edge_agent.training.gossip.mixing import MIXING_RULES
from edge_agent.training.gossip.public_copy import NeighbourCopy, PublicCopy
from edge_agent.training.sending import running_norm, why_unchanged
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.gossip import consensus_step
from fleet_protocol.gossip_plan import MixingRule
from fleet_protocol.kinds import Told
from fleet_protocol.sending_plan import ALWAYS
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import WHOLE_UPDATES


class Peer:
    """A device among its `neighbours`. Everybody begins with the same `model` f32[P]. `life` is at least 1, and another
    one whenever a device has lost its state; it draws what is random in compression.
    """

    def __init__(
        self, task: TaskDescription, neighbours: Neighbours, model: FloatVector, *, rule: MixingRule, life: int
    ) -> None:
        self.model = model
        """What the device trains from, and answers with."""
        self.rounds = 0
        self.usual_norm = 0.0
        """The running mean of the norms of its rounds' changes; 0 before the first."""
        self._task = task
        self._neighbours = neighbours
        self._mix = MIXING_RULES[rule]
        self._begun = model
        self._own = PublicCopy(Reached(life), model, 0)
        self._change = b""
        self._tells_whole = False
        self._copies = dict.fromkeys(neighbours.each, NeighbourCopy(PublicCopy(Reached(), model, 0), model))

    @property
    def neighbours(self) -> list[str]:
        """The names of those that it tells, and hears."""
        return list(self._copies)

    @property
    def state(self) -> PeerState:
        """All that it goes on from in another process."""
        own = self._own.reached
        copies = {name: self._state_of(copy) for name, copy in self._copies.items() if copy.reached.number}
        heads = {name: copy.head for name, copy in copies.items()}
        at_round, rounds, norm = self._own.at_round, self.rounds, self.usual_norm
        head = PeerHead(LAYOUT, own.life, own.number, at_round, rounds, norm, heads)
        return PeerState(head, self.model.tobytes(), self.whole().packed, self._change, copies)

    @property
    def standing(self) -> OwnStanding:
        """What its talk with neighbours goes by, without the numbers of its model."""
        own = self._own.reached
        known = {name: copy.reached for name, copy in self._copies.items() if copy.reached.number}
        return OwnStanding(own.life, own.number, self.rounds, known)

    @property
    def last_told(self) -> Told | None:
        """What it has told last; None before the first."""
        own = self._own.reached
        if not own.number:
            return None
        return Told(own.life, own.number, self._change) if self._change else self.whole()

    def go_on(self, state: PeerState) -> None:
        """Go on from a state. Who is no neighbour any more is forgotten.

        Raises:
            ProtocolError: its packed copy is damaged. Then everything stays as it was.
        """
        values = np.zeros_like(self._begun)
        decode_update(state.whole, self._task.shapes).add_to(values)
        self.model = np.frombuffer(state.model, np.float32)
        head = state.head
        self.rounds, self.usual_norm = head.rounds, head.usual_norm
        self._own = PublicCopy(Reached(head.life, head.number), values, head.told_at)
        self._change = state.change
        for name in self._copies.keys() & state.copies.keys():
            with contextlib.suppress(ProtocolError):  # damaged: it is asked for again
                self._copies[name] = NeighbourCopy.of(state.copies[name], self._task)

    def renew(self, life: int) -> None:
        """Go on with its model in another `life`: what was told in the last one is not known here any more. Its first
        change there is the whole copy.
        """
        self._own = PublicCopy(Reached(life), self._own.values, self.rounds)
        self._tells_whole = True

    def learn(self, delta: FloatVector) -> None:
        """Training has changed the model by `delta` f32[P]."""
        self.model = self.model + delta
        norm = min(float(np.linalg.norm(delta.astype(np.float64))), self._task.largest_delta_norm)
        self.usual_norm = running_norm(self.usual_norm, norm)

    def tell(self) -> Told | None:
        """What neighbours are told at the end of a round; None where the model has moved too little since the last time
        for a task that sends what has `changed`. After half of the rounds that a silent one counts for it tells anyway.
        """
        if self._tells_whole:
            return self._tell_whole()
        difference = self.model - self._own.values
        silent_rounds = self.rounds - self._own.at_round
        is_missed = silent_rounds >= self._task.aggregation.max_staleness // 2
        moved = float(np.linalg.norm(difference))
        if not is_missed and why_unchanged(self._task.sending, moved, self.usual_norm):
            return None
        own = self._own.reached
        reached = Reached(own.life, own.number + 1)
        generator = np.random.default_rng((reached.life, reached.number, ENCODING_STREAM))
        encoded = encode_update(difference, self._task.shapes, self._task.update, generator)
        values = self._own.values.copy()
        encoded.sent.add_to(values)
        self._own = PublicCopy(reached, values, self.rounds)
        self._change = encoded.packed
        return Told(reached.life, reached.number, encoded.packed)

    def _tell_whole(self) -> Told:
        own = self._own.reached
        self._own = PublicCopy(Reached(own.life, own.number + 1), self.model, self.rounds)
        self._change, self._tells_whole = b"", False
        return self.whole()

    def whole(self) -> Told:
        """Its public copy, for a neighbour that lacks a change."""
        own = self._own.reached
        nothing_drawn = np.random.default_rng((own.life, own.number, ENCODING_STREAM))
        encoded = encode_update(self._own.values, self._task.shapes, WHOLE_UPDATES, nothing_drawn)
        return Told(own.life, own.number, encoded.packed, whole=True)

    def hear(self, name: str, told: Told) -> Heard:
        """A neighbour has told something.

        Raises:
            ProtocolError: it is no neighbour's, no update of the task, or the copy would no longer be finite. Then the
                copy stays as it was.
        """
        copy = self._copies.get(name)
        if copy is None:
            raise ProtocolError(Reason.WRONG_RECIPIENT, f"{name} of the roster is no neighbour of this device")
        heard = copy.reached.judge(told)
        if heard is not Heard.TAKEN:
            return heard
        update = decode_update(told.packed, self._task.shapes)
        after = copy.after(told, update, self._begun, self.rounds)
        if not np.isfinite(after.values).all():
            raise ProtocolError(Reason.NOT_FINITE, f"the model of {name} would no longer be finite")
        self._copies[name] = after
        return heard

    def mix(self) -> None:
        """End the round: go towards the neighbours. Who has told nothing yet, or was silent for more rounds of this
        device than the task's `max_staleness`, does not count, and its weight is the device's own.
        """
        weights = {
            name: weight
            for name, weight in self._neighbours.weights(self.rounds).items()
            if self._counts(self._copies[name])
        }
        self.rounds += 1
        if weights:
            self.model = (self.model + self._move(weights)).astype(np.float32)

    def _counts(self, copy: NeighbourCopy) -> bool:
        return copy.reached.number > 0 and self.rounds - copy.at_round <= self._task.aggregation.max_staleness

    def _move(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """float64: differences of absurd numbers are no longer float32."""
        own = self._own.values.astype(np.float64)
        gamma = consensus_step(self._task)
        differences = [gamma * (self._copies[name].values - own) for name in weights]
        return self._mix(differences, list(weights.values()), self.usual_norm or self._task.largest_delta_norm)

    def _state_of(self, copy: NeighbourCopy) -> CopyState:
        reached = copy.reached
        distance = float(np.linalg.norm(copy.values.astype(np.float64) - self.model))
        changes = len(copy.changes)
        head = CopyHead(reached.life, reached.number, copy.at_round, reached.former, changes, distance)
        return CopyState(head, copy.base.tobytes(), copy.changes)


def local_task(task: TaskDescription) -> TaskDescription:
    """The task as a round trains it that is not for a coordinator: what is learned comes whole, as `Peer.tell` decides
    what is sent, and compresses it.
    """
    return msgspec.structs.replace(task, update=WHOLE_UPDATES, sending=ALWAYS)
