"""A task's steps, block by block, beside the steps of its own graph."""

import numpy as np

from benchmarks.chained_blocks import Chain, ExportedTask, held_by_sides
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.split_plan import Cut


def train_chained(
    exported: ExportedTask, cut: Cut | None, samples: Samples, plan: BatchPlan
) -> tuple[np.ndarray, np.ndarray]:
    """Trained weights f32[P] and the loss of each mini-batch f32[K]."""
    chain = Chain(exported, held_by_sides(exported, cut), samples.labels, exported.rates)
    losses = [
        chain.train(samples.take(rows), mask / mask.sum(), plan.seed + step)
        for step, (rows, mask) in enumerate(zip(plan.rows, plan.mask, strict=True))
    ]
    return chain.weights, np.array(losses)


def train_whole(exported: ExportedTask, samples: Samples, plan: BatchPlan) -> tuple[np.ndarray, np.ndarray]:
    """The same by `train.onnx`."""
    engine = OnnxStepEngine.of_task(exported.task, exported.files)
    return engine.train(exported.weights, samples, plan, exported.rates)
