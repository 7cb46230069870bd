"""A shared model that is one to begin with, and a device's own after some steps on its samples. Pure.

Reptile (Nichol et al. 2018) moves the shared model towards where a device's steps have led: as every round does. First
order MAML (Per-FedAvg, Fallah et al. 2020, algorithm 1) moves it by the gradient behind an adaptation step:

    adapted = w - adaptation rate * gradient at w, on one batch
    w = w - learning rate * gradient at adapted, on the next batch
"""

from dataclasses import replace

import numpy as np

from edge_agent.training.engine import OnProgress, ignore_progress
from edge_agent.training.personal.steps import Steps
from fleet_protocol.codec.sparse import FloatVector


def train_to_adapt(
    steps: Steps, weights: FloatVector, adaptation_rate: float, on_progress: OnProgress = ignore_progress
) -> tuple[FloatVector, FloatVector]:
    """The weights f32[P] behind all steps, every second of which is one to adapt by, and the loss of each as they come.
    An odd one at the end is left out; one by itself is taken twice.
    """
    pairs = max(1, steps.count // 2)
    adapting = steps.every_second(0, pairs).at(adaptation_rate)
    learning = steps.every_second(min(1, steps.count - 1), pairs)
    losses = np.empty(2 * pairs, np.float32)

    def behind(step: int, before: FloatVector, adapted: FloatVector) -> FloatVector:
        after, losses[2 * step + 1] = learning.one(adapted, step)
        return before + (after - adapted)

    trained, losses[0::2] = adapting.singly(weights, behind)
    on_progress(steps.count, losses)
    return trained, losses


def adapt(steps: Steps, weights: FloatVector) -> FloatVector:
    """The device's own model f32[P] behind all steps. Nothing pulls it back."""
    return replace(steps, rates=replace(steps.rates, proximal=0.0)).together(weights)[0]
