"""How far an exported training run ends from torch's own."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, Rates
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.sample_schema import LabelKind
from workbench.export.exportable_layers import exportable_layers, torchs_own_layers
from workbench.export.layer_context import LayerContext
from workbench.export.recipe import Recipe

STEPS = 20
BATCH = 8
PADDING = 3
"""Rows of a padded mini-batch that count for nothing."""
LEARNING_RATE = 0.02
SEED = 11
LOSSES: dict[LabelKind, Callable[..., Tensor]] = {
    "class": functional.cross_entropy,
    "multi_label": functional.binary_cross_entropy_with_logits,
    "regression": functional.mse_loss,
    "reconstruction": functional.mse_loss,
}


def largest_differences(recipe: Recipe, engine: OnnxStepEngine, samples: Samples) -> dict[str, float | None]:
    """The largest difference between any two weights after `STEPS` steps of plain gradient descent, from the same
    weights on the same mini-batches; None where torch refuses to train.

    `full` has every row of a mini-batch, `padded` some that don't count, `one_row` a single one.
    """
    random = np.random.default_rng(4)
    full = random.integers(0, len(samples.inputs), (STEPS, BATCH))
    real = np.ones((STEPS, BATCH), np.float32)
    padded = real.copy()
    padded[:, -PADDING:] = 0
    plans = {
        "full": BatchPlan(full, real, SEED),
        "padded": BatchPlan(full, padded, SEED),
        "one_row": BatchPlan(full[:, :1], real[:, :1], SEED),
    }
    return {name: _difference(recipe, engine, samples, plan) for name, plan in plans.items()}


def initial_weights(recipe: Recipe) -> NDArray[np.float32]:
    """The flat vector that training starts from."""
    weights: NDArray[np.float32] = torch.cat([tensor.ravel() for tensor in recipe.tensors.values()]).numpy().copy()
    return weights


def train_with_torch(
    recipe: Recipe, samples: Samples, chosen: Sequence[NDArray[np.int64]], rate: float, seed: int | None = None
) -> None:
    """A step on each entry of `chosen`, which are rows; with a seed, the model draws what the exported graph draws."""
    inputs = torch.from_numpy(samples.inputs)
    targets = inputs if recipe.task.label.kind == "reconstruction" else torch.from_numpy(samples.labels)
    loss = LOSSES[recipe.task.label.kind]
    optimiser = torch.optim.SGD(recipe.module.parameters(), lr=rate)
    for step, rows in enumerate(map(torch.from_numpy, chosen)):
        optimiser.zero_grad()
        scores = _scores(recipe.module, inputs[rows], None if seed is None else seed + step)
        loss(scores, targets[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _difference(recipe: Recipe, engine: OnnxStepEngine, samples: Samples, plan: BatchPlan) -> float | None:
    before = {name: value.clone() for name, value in recipe.module.state_dict().items()}
    trained, _ = engine.train(initial_weights(recipe), samples, plan, Rates(LEARNING_RATE))
    chosen = [rows[real > 0] for rows, real in zip(plan.rows, plan.mask, strict=True)]
    try:
        train_with_torch(recipe, samples, chosen, LEARNING_RATE, SEED)
    except ValueError:  # batch normalisation of a single value
        return None
    finally:
        after = initial_weights(recipe)
        recipe.module.load_state_dict(before)
    return float(np.abs(trained - after).max())


def _scores(module: nn.Module, inputs: Tensor, seed: int | None) -> Tensor:
    if seed is None:
        scores: Tensor = module(inputs)
        return scores
    context = LayerContext(torch.full(inputs.shape[:1], 1 / len(inputs)), torch.tensor(seed))
    with torchs_own_layers(), exportable_layers(module, context):
        scores = module(inputs)
    for name, value in context.updated.items():
        module.get_buffer(name).copy_(value.detach())
    return scores
