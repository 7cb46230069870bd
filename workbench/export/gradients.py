"""The functions that become graphs: one training step, evaluation, prediction.

Each takes positional tensors, in the order of the names that it was made for.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vjp, vmap

from workbench.export.exportable_layers import exportable_layers
from workbench.export.flat_weights import join, split
from workbench.export.layer_context import LayerContext
from workbench.export.optimisers import OPTIMISERS, Rates, clipped
from workbench.export.recipe import Recipe

GraphFunction = Callable[..., tuple[Tensor, ...]]
Tensors = dict[str, Tensor]

EVALUATION_SEED = 0
"""Evaluation and prediction take no seed: a model that draws in them too does so in the same way every time."""
STATE = "state."
"""Prefix of what the optimiser carries from step to step."""
LOG_PRIOR = "log_prior"
"""What a loss that balances classes adds to the scores, f32[C]."""


def training_step(recipe: Recipe, names: Sequence[str], *, per_sample: bool) -> GraphFunction:
    """One step of the recipe's optimiser, on the values that `training_graph.step_inputs` names.

    The function returns the updated weights f32[T], the optimiser's state, the updated buffers f32[S] if there are
    any, and `row_losses` f32[B]. What it minimises is `sum(row_weights * row_losses)` plus FedProx's proximal term
    (Li et al. 2020, equation 2); weights that add up to 1 over the real rows and are 0 on padding make that a mean.
    A loss that balances classes sees the scores with `log_prior` f32[C] added to them.

    `per_sample` clips the gradient of each row by itself before they are added up (Abadi et al. 2016, algorithm 1,
    without the noise); otherwise their sum is clipped.
    """
    update = OPTIMISERS[recipe.task.training.optimiser].update
    momentum = recipe.task.training.momentum

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        weights = named["weights"]
        gradient, row_losses, buffers = (_per_sample_gradient if per_sample else _gradient)(recipe, named)
        if "proximal" in named:
            gradient = gradient + named["proximal"] * (weights - named["anchor"])
        if "gradient_clip" in named and not per_sample:
            gradient = clipped(gradient, named["gradient_clip"])
        state = [named[name] for name in names if name.startswith(STATE)]
        rates = Rates(named["learning_rate"], named.get("weight_decay"), momentum)
        return (*update(weights, gradient, state, rates), *buffers, row_losses)

    return step


def evaluation(recipe: Recipe, names: Sequence[str]) -> GraphFunction:
    """`(weights f32[P], inputs f32[N, *shape], labels)` to `losses` f32[N], and `correct` f32[N] where labels are
    classes: 1 where the highest score is the label's, or the share of right answers if there are several labels.
    """

    def evaluate(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        scores = scores_of(
            recipe, split(named["weights"], recipe.parameters), named["inputs"], LayerContext(seed=EVALUATION_SEED)
        )
        labels = named.get("labels", named["inputs"])
        losses = recipe.row_loss(scores, labels)
        if recipe.task.label.kind == "class":
            return losses, (scores.argmax(dim=1) == labels).to(torch.float32)
        if recipe.task.label.kind == "multi_label":
            return losses, ((scores > 0) == (labels > 0.5)).to(torch.float32).mean(dim=1)
        return (losses,)

    return evaluate


def prediction(recipe: Recipe) -> GraphFunction:
    """`(weights f32[P], inputs f32[N, *shape])` to `(scores f32[N, ...],)`."""

    def predict(weights: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
        return (scores_of(recipe, split(weights, recipe.parameters), inputs, LayerContext(seed=EVALUATION_SEED)),)

    return predict


def _gradient(recipe: Recipe, named: Tensors) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradient f32[T] of the weighted sum of the row losses, those losses f32[B], and the updated buffers."""
    tensors = _trainable(recipe, named)
    buffers = _buffers(recipe, named)
    context = LayerContext(named["row_weights"], named.get("seed"))

    def losses_of(*values: Tensor) -> tuple[Tensor, Tensors]:
        given = dict(zip(tensors, values, strict=True)) | buffers
        scores = scores_of(recipe, given, named["inputs"], context)
        return _row_loss(recipe, named, scores, named.get("labels", named["inputs"])), context.updated

    # A vector-Jacobian product instead of `grad` of a mean: the weights enter as the cotangent of the rows, which
    # spares the step the mean and its backward pass.
    row_losses, pull_back, updated = vjp(losses_of, *tensors.values(), has_aux=True)  # type: ignore[misc] # see vjp
    gradient = join(pull_back(named["row_weights"]))
    changed = [updated.get(name, value) for name, value in buffers.items()]
    return gradient, row_losses, [join(changed)] if changed else []


def _per_sample_gradient(recipe: Recipe, named: Tensors) -> tuple[Tensor, Tensor, list[Tensor]]:
    """As `_gradient`, each row's gradient scaled to a norm of at most `gradient_clip` before they are added up."""
    tensors = _trainable(recipe, named)
    buffers = _buffers(recipe, named)
    labels = named.get("labels", named["inputs"])

    def loss_of(values: Tensors, inputs: Tensor, label: Tensor, row: Tensor) -> Tensor:
        context = LayerContext(seed=named.get("seed"), row=row)
        scores = scores_of(recipe, values | buffers, inputs.unsqueeze(0), context)
        return _row_loss(recipe, named, scores, label.unsqueeze(0)).squeeze(0)

    rows = torch.arange(labels.shape[0])
    gradients, row_losses = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0, 0))(
        tensors, named["inputs"], labels, rows
    )
    matrix = torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
    norms = torch.sqrt((matrix * matrix).sum(dim=1))
    scales = named["row_weights"] * torch.clamp(named["gradient_clip"] / norms, max=1)
    kept = [named["buffers"].clone()] if buffers else []  # an output needs a name of its own
    return (scales.unsqueeze(0) @ matrix).squeeze(0), row_losses, kept


def _row_loss(recipe: Recipe, named: Tensors, scores: Tensor, labels: Tensor) -> Tensor:
    """The loss as training sees it."""
    return recipe.row_loss(scores + named[LOG_PRIOR] if recipe.loss.balances_classes else scores, labels)


def _trainable(recipe: Recipe, named: Tensors) -> Tensors:
    return split(named["weights"], [parameter for parameter in recipe.parameters if parameter.trainable])


def _buffers(recipe: Recipe, named: Tensors) -> Tensors:
    buffers = [parameter for parameter in recipe.parameters if not parameter.trainable]
    return split(named["buffers"], buffers) if buffers else {}


def scores_of(recipe: Recipe, tensors: Tensors, inputs: Tensor, context: LayerContext) -> Tensor:
    """What the module makes of `inputs` f32[B, *shape] with these parameters and buffers."""
    with exportable_layers(recipe.module, context):
        scores: Tensor = functional_call(recipe.module, tensors, (inputs,))
    return scores
