"""One step through all blocks, as a generator: it yields what it asks of the helper, and is sent the answer."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from bundle_runtime.blocks import Floats, Labels, Rates
from bundle_runtime.samples import Samples
from bundle_runtime.trained_block import Then
from edge_agent.training.engine import BatchPlan
from edge_agent.training.split.own_blocks import Change, OwnBlocks
from fleet_protocol.split_placement import Leg, PartPass
from fleet_protocol.split_plan import SplitPlan

SEEDS: Final = 2**32


class NotFiniteError(Exception):
    """The device's own blocks give values that are not finite."""


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """Step `number` of the round, from 0, with the samples of its mini-batch; dropout draws from `seed`."""

    number: int
    inputs: Floats
    labels: Labels
    seed: int


@dataclass(frozen=True, slots=True)
class MiniBatches:
    """Those of a round, by the numbers of their steps. Each is taken out of the samples when it is asked for."""

    samples: Samples
    plan: BatchPlan

    def __len__(self) -> int:
        """How many there are."""
        return len(self.plan.rows)

    def __getitem__(self, number: int) -> MiniBatch:
        taken = self.samples.take(self.plan.rows[number][self.plan.mask[number] > 0])
        return MiniBatch(number, taken.inputs, taken.labels, (self.plan.seed + number) % SEEDS)


@dataclass(frozen=True, slots=True)
class Ask:
    """A pass through the helper's `leg`, the `part_pass`-th of its step: activations or gradient f32[N, ...]."""

    direction: Literal["forward", "backward"]
    leg: Leg
    part_pass: int
    update: bool
    values: Floats


Penalty = Callable[[Floats, Floats], Floats]
"""Samples f32[N, ...], and what leaves the device first, f32[N, ...], to a gradient by the latter that is added."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What all steps of a round have in common."""

    plan: SplitPlan
    legs: Sequence[Leg]
    passes: Sequence[PartPass]
    rates: Rates
    log_priors: Mapping[str, Floats]
    penalty: Penalty | None = None

    @property
    def penalised(self) -> Leg | None:
        """The helper's leg that what leaves the device first goes to, where there is a penalty on that."""
        return next((leg for leg in self.legs if leg.at_helper), None) if self.penalty else None


@dataclass(slots=True)
class _Forward:
    """Of a forward pass: what each of the device's blocks took, and how it stood; what left first, if that is asked."""

    inputs: dict[int, Floats] = field(default_factory=dict)
    blocks: dict[int, Then] = field(default_factory=dict)
    left: Floats | None = None


Walk = Generator[Ask, Floats, float]
"""Returns the mean loss of the mini-batch, summed over the task's parts."""


class Step:
    """A mini-batch on its way. `changes` are what it has made of the device's blocks so far."""

    def __init__(self, batch: MiniBatch, common: StepPlan, blocks: OwnBlocks, company: int) -> None:
        """`company` are the other steps that are under way while this one is."""
        self.batch = batch
        self.changes: list[Change] = []
        self._common = common
        self._company = company
        self._blocks = blocks
        self._runner = blocks.runner
        self._last = len(common.plan.blocks) - 1

    def walk(self) -> Walk:
        """All passes of the step.

        Raises:
            NotFiniteError: what is to leave the device is not finite.
        """
        loss = 0.0
        for number, part_pass in enumerate(self._common.passes):
            loss += yield from self._walk_part(number, part_pass)
        return loss

    def _walk_part(self, number: int, part_pass: PartPass) -> Walk:
        forward = _Forward()
        values = self.batch.inputs
        for leg in self._common.legs:
            if leg.at_helper:
                forward.left = values if leg == self._common.penalised else forward.left
                values = yield Ask("forward", leg, number, False, _finite(values))
            else:
                values = self._forward(leg, values, forward)
        loss, gradient = self._at_the_end(part_pass, values)
        for leg in reversed(self._common.legs):
            if leg.end <= part_pass.until:
                break
            if leg.at_helper:
                update = part_pass.trains(self._common.plan, leg.first)
                gradient = yield Ask("backward", leg, number, update, _finite(gradient))
                if self._common.penalty is not None and forward.left is not None and leg == self._common.penalised:
                    gradient = gradient + self._common.penalty(self.batch.inputs, forward.left)
            else:
                gradient = self._backward(leg, gradient, forward, part_pass)
        return loss

    def _forward(self, leg: Leg, values: Floats, forward: _Forward) -> Floats:
        for block in leg.blocks:
            held = self._blocks[block]
            forward.inputs[block] = values
            forward.blocks[block] = held.now(self._company)
            values = held.forward(self._runner, values, self.batch.seed, self.batch.inputs)
        return values

    def _at_the_end(self, part_pass: PartPass, values: Floats) -> tuple[float, Floats]:
        """The mean loss, and its gradient by what the last block takes, which is trained."""
        held = self._blocks[self._last]
        last = self._runner.last(
            held.weights,
            held.state,
            values,
            self.batch.labels,
            seed=self.batch.seed,
            rates=held.slowed(self._common.rates, held.now(self._company)),
            part=part_pass.part,
            raw=self.batch.inputs,
            log_priors=self._common.log_priors,
            anchor=held.start,
        )
        trains = part_pass.trains(self._common.plan, self._last)
        self.changes.append(self._blocks.accept(self._last, last, update=trains))
        return float(last.row_losses.mean(dtype=np.float64)), last.input_gradient

    def _backward(self, leg: Leg, gradient: Floats, forward: _Forward, part_pass: PartPass) -> Floats:
        for block in reversed(leg.blocks):
            held, update = self._blocks[block], part_pass.trains(self._common.plan, block)
            result = held.backward(
                self._runner,
                forward.inputs.pop(block),
                gradient,
                seed=self.batch.seed,
                rates=self._common.rates,
                then=forward.blocks.pop(block),
                raw=self.batch.inputs,
                update=update,
            )
            self.changes.append(self._blocks.accept(block, result, update=update))
            if result.input_gradient is None:
                return gradient
            gradient = result.input_gradient
        return gradient


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise NotFiniteError
    return values
