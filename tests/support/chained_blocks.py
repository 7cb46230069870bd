"""A task's steps, run block by block as a device and a helper run them together, beside the steps of its own graph."""

from dataclasses import dataclass

import numpy as np

from bundle_runtime.blocks import BlockRunner, State
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, Rates
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import WEIGHTS_FILE, TaskDescription
from fleet_protocol.codec import read_weights
from fleet_protocol.split_plan import Cut, is_helpers


@dataclass(slots=True)
class Side:
    """A device, or a helper: the graphs of its blocks alone, and their weights and optimisers."""

    runner: BlockRunner
    weights: dict[int, np.ndarray]
    states: dict[int, State]
    anchors: dict[int, np.ndarray]

    @classmethod
    def of(cls, task: TaskDescription, files: dict[str, bytes], blocks: list[int]) -> "Side":
        """The side that runs these blocks, from the initial weights."""
        runner = BlockRunner(task, files, blocks)
        flat = read_weights(files[WEIGHTS_FILE], task.parameters)
        weights = {block: runner.weights_of(block, flat) for block in blocks}
        return cls(runner, weights, {block: runner.new_state(block) for block in blocks}, dict(weights))


def sides(task: TaskDescription, files: dict[str, bytes], cut: Cut | None) -> list[Side]:
    """The side of each block: of a cut, that of the device or of the helper."""
    count = len(task.split.blocks)
    at_helper = [cut is not None and is_helpers(cut, block) for block in range(count)]
    both = {
        there: Side.of(task, files, [block for block in range(count) if at_helper[block] is there])
        for there in set(at_helper)
    }
    return [both[there] for there in at_helper]


def train_chained(
    task: TaskDescription, files: dict[str, bytes], cut: Cut | None, samples: Samples, plan: BatchPlan, rates: Rates
) -> tuple[np.ndarray, np.ndarray]:
    """Trained weights f32[P] and the loss of each mini-batch f32[K]."""
    split, chain = task.split, sides(task, files, cut)
    last = len(chain) - 1
    priors = chain[last].runner.log_priors(samples.labels)
    losses = np.zeros(len(plan.rows), np.float32)
    for step, (rows, mask) in enumerate(zip(plan.rows, plan.mask, strict=True)):
        batch, row_weights = samples.take(rows), mask / mask.sum()
        for part in split.turns:
            common = {"seed": plan.seed + step, "row_weights": row_weights, "raw": batch.inputs}
            given = [batch.inputs]
            for block in range(last):
                side = chain[block]
                given.append(side.runner.forward(block, side.weights[block], given[block], **common))
            for block in range(last, -1, -1):
                side = chain[block]
                own = {**common, "rates": rates, "anchor": side.anchors[block]}
                if block == last:
                    made = side.runner.last(
                        side.weights[block],
                        side.states[block],
                        given[block],
                        batch.labels,
                        part=part,
                        log_priors=priors,
                        **own,
                    )
                    losses[step] += made.row_losses @ row_weights
                else:
                    made = side.runner.backward(
                        block,
                        side.weights[block],
                        side.states[block],
                        given[block],
                        gradient,
                        update=part in ("", split.blocks[block].part),
                        **own,
                    )
                side.weights[block], side.states[block], gradient = made.weights, made.state, made.input_gradient
    flat = np.zeros(task.parameter_count, np.float32)
    for block, side in enumerate(chain):
        side.runner.into(flat, block, side.weights[block])
    return flat, losses


def train_whole(
    task: TaskDescription, files: dict[str, bytes], samples: Samples, plan: BatchPlan, rates: Rates
) -> tuple[np.ndarray, np.ndarray]:
    """The same by `train.onnx`."""
    weights = read_weights(files[WEIGHTS_FILE], task.parameters)
    return OnnxStepEngine.of_task(task, files).train(weights, samples, plan, rates)
