"""What a round computes: train, join the error feedback of earlier rounds, compress. Pure.

The training worker runs it on a device, the simulator in its own process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.gaussian_integers import Draw
from bundle_runtime.samples import Samples
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.compression import Encode, Packed, UpdateTooLargeError, pack, remember
from edge_agent.training.divergence import divergence
from edge_agent.training.engine import (
    BatchPlan,
    OnProgress,
    PlanBatches,
    Rates,
    TrainingEngine,
    ignore_progress,
    plan_batches,
)
from edge_agent.training.feedback import ErrorFeedback
from edge_agent.training.personal.shared_steps import train_shared
from edge_agent.training.personal.steps import Steps
from edge_agent.training.private.randomness import OF_THE_SYSTEM, sampled_batches
from edge_agent.training.sending import running_norm, why_unchanged
from edge_agent.training.statistics import in_other_units, measure, unlike_the_fleet
from edge_agent.worker.contract import MaskedResult, Returned, TrainingResult
from fleet_protocol.codec import encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.limits import MAX_LOSS
from fleet_protocol.remedies import STEADIER_TRAINING
from fleet_protocol.task_description import TaskDescription

Mask = Callable[[FloatVector, ErrorFeedback], MaskedResult]
"""Takes a round's change of the trained weights and the error feedback, as `masked_update.masked_result`."""

Train = Callable[[Steps, FloatVector, OnProgress], tuple[FloatVector, FloatVector]]
"""From steps and weights f32[P]: the weights behind all steps, and the loss of each."""


class DivergedError(Exception):
    """Loss or weights are no longer finite, or changed by more than the task takes, or would be, as the samples are in
    other units than the fleet's; says what was seen, what to do. `drift` is what the next round is steered by against
    drift, None where that stays as it is.
    """

    drift: bytes | None = None


class OtherUnitsError(DivergedError):
    """No step was made, as the samples are in other units than the fleet's."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier rounds of a device left to this one.

    `residual` is the state of the error feedback, empty at first, which then begins the life `life`; `returned` are
    rejected updates; `seed` counts the rounds and picks the batches; `epochs` is how often they went over the samples
    that were stored at the last of them, `usual_norm` the running mean of the norms of their changes, and
    `last_weights` f32[P] those that the last one began with, where they are known and others than this round's.
    `prompting` is what the device's owner lets it tell, None where nobody asks for prompts, and `told` the mark of
    those that were told last. `draw` gives what a round with privacy of samples draws; of others, `plan` picks the
    batches. `mask` masks what is sent, where a cohort sums it; `encode` writes what is sent otherwise. `own` is what
    the device keeps of the model to itself, empty at first. `drift` is what it has left against drift, empty at first,
    and `versions_since` counts the versions that were made since the one that `last_weights` are of.
    """

    residual: bytes
    returned: Sequence[Returned]
    seed: int
    life: int
    epochs: float = 0.0
    usual_norm: float = 0.0
    last_weights: FloatVector | None = None
    prompting: PromptSettings | None = None
    told: bytes = b""
    draw: Draw = OF_THE_SYSTEM
    mask: Mask | None = None
    encode: Encode = encode_update
    plan: PlanBatches = plan_batches
    own: bytes = b""
    drift: bytes = b""
    versions_since: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """What a round's training gave: `weights` f32[P], and the loss of each step, f32[K].

    `held` is of each block the samples that trained it here; empty where the round trained all of the model.
    """

    weights: FloatVector
    losses: FloatVector
    held: tuple[int, ...] = ()

    @property
    def first_loss(self) -> float:
        """That of the weights that the round began with, on the first mini-batch: what the fleet's model is worth here.
        The mean over the steps would say how fast a device learns its own samples by heart.
        """
        return float(self.losses[0])

    @property
    def steps(self) -> int:
        """How many there were."""
        return self.losses.size


def train_round(
    engine: TrainingEngine,
    weights: FloatVector,
    samples: Samples,
    task: TaskDescription,
    earlier: Earlier,
    *,
    on_progress: OnProgress = ignore_progress,
) -> TrainingResult:
    """Train from `weights` f32[P] on all of `samples`, and pack what was learned; or measure the samples, while the
    task awaits its scale.

    Raises:
        DivergedError: loss or weights are no longer finite, or changed by more than the task takes.
        EngineError: bundle and samples contradict each other.
    """
    if task.scaling.is_awaited:
        return measure(samples, task)
    learned = learn(
        engine, weights, samples, task, earlier.seed, draw=earlier.draw, plan=earlier.plan, on_progress=on_progress
    )
    return finish_round(learned, weights, samples, task, earlier)


def learn(
    engine: TrainingEngine,
    weights: FloatVector,
    samples: Samples,
    task: TaskDescription,
    seed: int,
    *,
    draw: Draw = OF_THE_SYSTEM,
    plan: PlanBatches = plan_batches,
    resting: NDArray[np.bool_] | None = None,
    rates: Rates | None = None,
    train: Train | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Learned:
    """Train from `weights` f32[P] on all of `samples`, with the task's `rates` or others, and with `train` in place of
    the task's way to take steps; with privacy of samples, on batches that `draw` picks, in which those that are
    `resting`, bool [N], are missing.

    Raises:
        DivergedError: loss or weights are no longer finite, or the loss is more than the task takes; or the samples
            are in other units than those that the task's scale was made of.
        EngineError: bundle and samples contradict each other.
    """
    if task.sample_privacy is None and (words := in_other_units(samples, task)):
        raise OtherUnitsError(f"{words}: its unit is another; nothing is trained: correct what takes the samples")
    batches = _batches(len(samples), task, seed, draw, plan=plan, resting=resting)
    steps = Steps(engine, samples, batches, rates or Rates.planned(task.training))
    if train is None:
        trained, losses = train_shared(steps, weights, task, on_progress)
    else:
        trained, losses = train(steps, weights, on_progress)
    if diverged := divergence(losses, trained, samples, batches, task.training.learning_rate):
        raise _diverged(str(diverged), samples, task)
    if too_large := _too_large_loss(losses):
        raise _diverged(_explained(too_large, losses, samples, task), samples, task)
    return Learned(trained, losses)


def _batches(
    samples: int,
    task: TaskDescription,
    seed: int,
    draw: Draw,
    *,
    plan: PlanBatches,
    resting: NDArray[np.bool_] | None,
) -> BatchPlan:
    steps = steps_of_round(task.training, samples)
    if task.sample_privacy is not None:
        return sampled_batches(samples, steps, task.sample_privacy.sampling_rate, draw, seed, resting=resting)
    return plan(samples, steps, task.training.batch_size, seed)


def finish_round(
    learned: Learned, weights: FloatVector, samples: Samples, task: TaskDescription, earlier: Earlier
) -> TrainingResult:
    """Pack what was learned from `weights` f32[P] on, together with what earlier rounds left behind.

    Raises:
        DivergedError: it is more than the task takes.
    """
    memory = remember(task, earlier.residual, earlier.returned, earlier.life)
    delta = learned.weights - weights
    norm = float(np.linalg.norm(delta[: task.trained_count]))
    kept = why_unchanged(task.sending, norm, earlier.usual_norm)
    try:
        packed, masked = Packed(b"", forgotten=0.0), None
        if earlier.mask is not None and not kept:
            masked = earlier.mask(delta[: task.trained_count], memory)
        elif not kept:
            packed = pack(delta, memory, task, earlier.seed, learned.held, encode=earlier.encode)
    except UpdateTooLargeError as error:
        raise _diverged(_explained(str(error), learned.losses, samples, task), samples, task) from error
    return TrainingResult(
        packed=packed.data,
        residual=memory.state(),
        samples=len(samples),
        steps=learned.steps,
        trained_through=samples.newest,
        loss=learned.first_loss,
        life=memory.life,
        forgotten=masked.forgotten if masked else packed.forgotten,
        unlike_the_fleet=unlike_the_fleet(samples, task),
        usual_norm=running_norm(earlier.usual_norm, norm),
        kept=kept,
        held=learned.held,
        told=earlier.told,
        masked=masked,
        noise=task.sample_privacy.told_noise if task.sample_privacy else None,
    )


def _diverged(what: str, samples: Samples, task: TaskDescription) -> DivergedError:
    """A device whose units may be others is told that first: no smaller step helps it."""
    words = unlike_the_fleet(samples, task)
    return DivergedError(f"{words}; is its unit another? {what}" if words else what)


def _too_large_loss(losses: FloatVector) -> str:
    """Why no coordinator would take a loss like that, in the mean or in the first step; empty where it would."""
    for which, loss in (
        ("mean", float(np.add.reduce(losses, dtype=np.float64)) / losses.size),
        ("first", float(losses[0])),
    ):
        if abs(loss) > MAX_LOSS:
            return f"the {which} loss is {loss:g}, at most {MAX_LOSS:g} is taken"
    return ""


def _explained(what: str, losses: FloatVector, samples: Samples, task: TaskDescription) -> str:
    """What was too large, beside what makes it so. It stays on the device, as it reveals something of its data."""
    return (
        f"training diverged: {what}; loss {losses[0]:g} in the first step, {losses[-1]:g} in the last, inputs"
        f" {np.nanmin(samples.inputs):g} to {np.nanmax(samples.inputs):g}, learning rate"
        f" {task.training.learning_rate:g}; {STEADIER_TRAINING}"
    )
