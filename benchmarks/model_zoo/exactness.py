"""How far an exported training run ends from torch's own."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, Rates
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.sample_schema import LabelKind
from workbench.export.layers.exportable_layers import exportable_layers, torchs_own_layers
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.recipe import Recipe

STEPS = 20
BATCH = 8
PADDING = 3
"""Rows of a padded mini-batch that count for nothing."""
LEARNING_RATE = 0.02
SEED = 11
NEIGHBOURS = 8
"""Runs of torch from weights that differ by rounding. Where an activation lies at its kink, some of them cross it."""
NEARBY = 4 * torch.finfo(torch.float32).eps
"""How far their weights differ, relatively: a sum in another order differs by some roundings."""
LOSSES: dict[LabelKind, Callable[..., Tensor]] = {
    "class": functional.cross_entropy,
    "multi_label": functional.binary_cross_entropy_with_logits,
    "regression": functional.mse_loss,
    "reconstruction": functional.mse_loss,
}


@dataclass(frozen=True, slots=True)
class Distance:
    """Largest differences between any two weights after `STEPS` steps of plain gradient descent, from the same weights
    on the same mini-batches.
    """

    from_torch: float
    """Of the exported graph from torch in float32."""
    rounding: float
    """Of torch in float32 from itself in float64, or from itself with weights that differ by some roundings, whichever
    is largest: what rounding alone comes to, where a model amplifies it.
    """


def distances(recipe: Recipe, engine: OnnxStepEngine, samples: Samples) -> dict[str, Distance | None]:
    """How far training ends from torch's; None where torch refuses to train.

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
    return {name: _distance(recipe, engine, samples, plan) for name, plan in plans.items()}


def initial_weights(recipe: Recipe) -> NDArray[np.float32]:
    """The flat vector that training starts from."""
    return _flat(recipe, recipe.module)


def train_with_torch(  # noqa: PLR0917 - what a training run is
    recipe: Recipe,
    module: nn.Module,
    samples: Samples,
    chosen: Sequence[NDArray[np.int64]],
    rate: float,
    seed: int | None = None,
) -> None:
    """A step of `module`, the recipe's or a copy, on each entry of `chosen`, which are rows.

    With a seed, the model draws what the exported graph draws.
    """
    dtype = next(module.parameters()).dtype
    inputs, labels = torch.from_numpy(samples.inputs).to(dtype), torch.from_numpy(samples.labels)
    targets = inputs if recipe.task.label.kind == "reconstruction" else labels
    if targets.is_floating_point():
        targets = targets.to(dtype)
    loss = LOSSES[recipe.task.label.kind]
    trained = [value for name, value in module.named_parameters() if recipe.trains(name)]
    optimiser = torch.optim.SGD(trained, lr=rate)
    for step, rows in enumerate(map(torch.from_numpy, chosen)):
        module.zero_grad()
        scores = _scores(module, inputs[rows], None if seed is None else seed + step)
        loss(scores, targets[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _distance(recipe: Recipe, engine: OnnxStepEngine, samples: Samples, plan: BatchPlan) -> Distance | None:
    trained, _ = engine.train(initial_weights(recipe), samples, plan, Rates(LEARNING_RATE))
    chosen = [rows[real > 0] for rows, real in zip(plan.rows, plan.mask, strict=True)]
    starts = [deepcopy(recipe.module), deepcopy(recipe.module).double()]
    starts += [_neighbour(recipe.module, seed) for seed in range(NEIGHBOURS)]
    ends = []
    for module in starts:
        try:
            train_with_torch(recipe, module, samples, chosen, LEARNING_RATE, SEED)
        except ValueError:  # batch normalisation of a single value
            return None
        ends.append(_flat(recipe, module))
    single, *others = ends
    return Distance(float(np.abs(trained - single).max()), max(float(np.abs(single - other).max()) for other in others))


def _neighbour(module: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are within `NEARBY`."""
    neighbour, random = deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in neighbour.parameters():
            value.mul_(1 + NEARBY * (2 * torch.rand(value.shape, generator=random) - 1))
    return neighbour


def _flat(recipe: Recipe, module: nn.Module) -> NDArray[np.float32]:
    """The recipe's parameters as this module has them."""
    state = module.state_dict()
    flat: NDArray[np.float32] = torch.cat([state[each.name].ravel() for each in recipe.parameters]).float().numpy()
    return flat


def _scores(module: nn.Module, inputs: Tensor, seed: int | None) -> Tensor:
    if seed is None:
        scores: Tensor = module(inputs)
        return scores
    context = LayerContext(torch.full(inputs.shape[:1], 1 / len(inputs), dtype=inputs.dtype), torch.tensor(seed))
    with torchs_own_layers(), exportable_layers(module, context):
        scores = module(inputs)
    for name, value in context.updated.items():
        module.get_buffer(name).copy_(value.detach())
    return scores
