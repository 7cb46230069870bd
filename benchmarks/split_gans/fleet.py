"""Participants that train a generator and its discriminator, block by block, with copies of blocks that some share.

A step is that of the exported graphs, chained (benchmarks/chained_blocks.py): a device's own blocks and those of its
helper, one device after the other, as a helper that waits for nobody would serve them; or all in lockstep. Optimisers
keep their state with whoever holds the block.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.chained_blocks import Chain, ExportedTask, Held
from benchmarks.split_gans.averaging_plan import BlockMean, averaged
from benchmarks.split_gans.border import Border
from benchmarks.split_gans.lockstep import SharedStep
from benchmarks.split_gans.scenario import ROWS, Participant
from benchmarks.split_gans.trainee import Trainee, Training
from bundle_runtime.blocks import BlockRunner
from edge_agent.training.engine import Rates, plan_batches
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.split_plan import Passing, SplitPlan

LOOKED_AT = "discriminator.block3"
"""The layer in the middle that clusters follow from: always a helper's."""
HELPER = "helper"

HolderOf = Callable[[Participant, int, SplitPlan], str]
"""Who holds the block of this number that a participant's steps go through."""


class GanFleet:
    """All participants of a method."""

    def __init__(
        self,
        exported: ExportedTask,
        participants: Sequence[Participant],
        holder_of: HolderOf,
        training: Training,
    ) -> None:
        """Everybody begins with the exported weights."""
        self.plan, self.participants, self._training = exported.plan, participants, training
        self._blocks, self._parameters = range(len(self.plan.blocks)), exported.task.parameter_count
        self._looked_at = [block.point for block in self.plan.blocks].index(LOOKED_AT)
        runner = BlockRunner(exported.task, exported.files, self._blocks)
        self._held: dict[tuple[str, int], Held] = {}
        self._trainees = {}
        crossing = Passing(activations=training.wire, gradients=training.wire, activation_noise=training.noise)
        for number, participant in enumerate(participants):
            keys = [(holder_of(participant, block, self.plan), block) for block in self._blocks]
            for holder, block in keys:
                self._held.setdefault((holder, block), Held.untrained(runner, block, exported.weights))
            samples = participant.data.samples()
            border = Border([holder == participant.name for holder, _ in keys], crossing, number)
            steps = training.iterations * participant.steps
            batches = plan_batches(len(samples), steps, ROWS, training.seed * 1000 + number)
            held = [self._held[key] for key in keys]
            chain = Chain(exported, held, samples.labels, Rates(training.learning_rate), border)
            self._trainees[participant.name] = Trainee(participant, samples, batches, border, chain)

    def iterate(self, iteration: int) -> bool:
        """The steps of each participant; iterations count from 0. Whether all numbers were finite: no session takes
        others, and a loss may be.
        """
        try:
            losses = (self._lockstep if self._training.lockstep else self._one_after_another)(iteration)
        except ProtocolError as error:
            if error.reason is not Reason.NOT_FINITE:
                raise
            return False
        return bool(np.isfinite(losses).all())

    def _one_after_another(self, iteration: int) -> list[float]:
        losses = []
        for trainee in self._trainees.values():
            first = iteration * trainee.participant.steps
            for step in range(first, first + trainee.participant.steps):
                trainee.border.begin(step)
                losses += [trainee.turn(step, part) for part in self.plan.turns]
                trainee.look_at(step, self._looked_at)
        return losses

    def _lockstep(self, iteration: int) -> list[float]:
        """As each takes one step an iteration."""
        losses = []
        helpers = [held for (holder, _), held in self._held.items() if holder == HELPER]
        for trainee in self._trainees.values():
            trainee.border.begin(iteration)
        for part in self.plan.turns:
            shared = [SharedStep(held, self._training.learning_rate) for held in helpers]
            for trainee in self._trainees.values():
                losses.append(trainee.turn(iteration, part))
                for step in shared:
                    step.take_back()
            for step in shared:
                step.end()
        for trainee in self._trainees.values():
            trainee.look_at(iteration, self._looked_at)
        return losses

    @property
    def session_bytes(self) -> tuple[int, int]:
        """Of a step of a device, up to its helper and down: the mean over those that were counted."""
        borders = [each.border for each in self._trainees.values()]
        steps = max(sum(each.steps for each in borders), 1)
        return round(sum(each.up for each in borders) / steps), round(sum(each.down for each in borders) / steps)

    def take_activations(self) -> dict[str, NDArray[np.float64]]:
        """Each participant's mean activation f64[V] since they were last taken."""
        found = {}
        for name, trainee in self._trainees.items():
            found[name] = np.asarray(trainee.looked_at) / max(trainee.steps, 1)
            trainee.looked_at, trainee.steps = 0.0, 0
        return found

    def average(self, means: Sequence[BlockMean]) -> None:
        """Give all receivers their means."""
        found = [
            averaged(mean, {holder: self._held[holder, mean.block].weights for holder in mean.shares}) for mean in means
        ]
        for mean, weights in zip(means, found, strict=True):
            if weights is not None:
                for receiver in mean.receivers:
                    self._held[receiver, mean.block].weights = weights

    def swap(self, names: Sequence[str], block: int) -> None:
        """Let participants have each other's block, with its optimiser's state: each that of the next in the list."""
        held = [self._held[name, block] for name in names]
        taken = [(each.weights, each.state) for each in held]
        for each, (weights, state) in zip(held, taken[1:] + taken[:1], strict=True):
            each.weights, each.state = weights, state

    def entries_of(self, chosen: Callable[[int], bool]) -> NDArray[np.bool_]:
        """Where the chosen blocks' values stand in the flat weight vector, as a mask over it."""
        runner = next(iter(self._held.values())).runner
        mask = np.zeros(self._parameters, np.float32)
        for block in filter(chosen, self._blocks):
            runner.into(mask, block, np.ones_like(runner.weights_of(block, mask)))
        return mask > 0

    def give(self, participant: Participant, weights: FloatVector) -> None:
        """Let all blocks that a participant's steps go through have what `weights` f32[P] say."""
        for block, held in enumerate(self._trainees[participant.name].chain.held):
            held.weights = held.runner.weights_of(block, weights)

    def all_weights(self) -> dict[str, FloatVector]:
        """As `weights_of`, of each participant by its name."""
        return {each.name: self.weights_of(each) for each in self.participants}

    def weights_of(self, participant: Participant) -> FloatVector:
        """f32[P] of the pair that a participant's steps go through."""
        return self._trainees[participant.name].chain.weights
