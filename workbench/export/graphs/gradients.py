"""The functions that become graphs: one training step, evaluation, prediction, drawing.

Each takes positional tensors, in the order of the names that it was made for.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vjp, vmap

from fleet_protocol.drawing_plan import DrawingPlan
from fleet_protocol.sample_schema import qualified
from workbench.export.graphs.flat_weights import Cut, join, split
from workbench.export.graphs.optimisers import OPTIMISERS, Rates, clipped
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.drawing import DrawingPart
from workbench.export.recipe.heads import Batch
from workbench.export.recipe.recipe import Recipe

GraphFunction = Callable[..., tuple[Tensor, ...]]
Tensors = dict[str, Tensor]

EVALUATION_SEED = 0
"""Evaluation and prediction take no seed: a model that draws in them too does so in the same way every time."""
STATE = "state."
"""Prefix of what the optimiser carries from step to step."""
SCALAR_STATE = f"{STATE}scalar_"
"""Prefix of those of them that are one number."""


def training_step(recipe: Recipe, names: Sequence[str], *, per_sample: bool) -> GraphFunction:
    """One step of the recipe's optimiser, on the values that `training_graph.step_inputs` names.

    The function returns the updated weights f32[T], the optimiser's state, the updated buffers f32[S] if there are
    any, and `row_losses` f32[B]. What it minimises is `sum(row_weights * row_losses)` plus FedProx's proximal term
    (Li et al. 2020, equation 2); weights that add up to 1 over the real rows and are 0 on padding make that a mean.
    A loss that balances classes sees the scores of its head with `log_prior` f32[C] added to them.

    `per_sample` clips the gradient of each row by itself before they are added up (Abadi et al. 2016, algorithm 1,
    without the noise); otherwise their sum is clipped.
    """
    update = OPTIMISERS[recipe.task.training.optimiser].update
    momentum = recipe.task.training.momentum

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        gradient, row_losses, buffers = (_per_sample_gradient if per_sample else _gradient)(recipe, named)
        gradient = pulled(gradient, named, named["weights"], named["anchor"], clips=not per_sample)
        state = [named[name] for name in names if name.startswith(STATE)]
        rates = Rates(named["learning_rate"], named.get("weight_decay"), momentum)
        return (*update(named["weights"], gradient, state, rates), *buffers, row_losses)

    return step


def alternating_step(recipe: Recipe, names: Sequence[str]) -> GraphFunction:
    """As `training_step`, for each part of the recipe in turn: on its own loss, with its own rate, and after the parts
    before it. `row_losses` are the sum over the parts. No optimiser mixes entries, so one state serves all parts.
    """
    update = OPTIMISERS[recipe.task.training.optimiser].update
    vectors = [name for name in names if name.startswith(STATE) and not name.startswith(SCALAR_STATE)]
    scalars = [name for name in names if name.startswith(SCALAR_STATE)]

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        row_losses = torch.zeros(())
        counted: list[Tensor] = []
        for part, settings in recipe.task.parts.items():
            cut = Cut([each for each in recipe.parameters if each.trainable], recipe.names_in(part))
            gradient, losses, buffers = _gradient(recipe, named, part)
            weights = cut.out(named["weights"])
            gradient = pulled(gradient, named, weights, cut.out(named["anchor"]), clips=True)
            rates = Rates(
                settings.rate * named["learning_rate"], named.get("weight_decay"), recipe.task.training.momentum
            )
            state = [*(cut.out(named[name]) for name in vectors), *(named[name] for name in scalars)]
            weights, *state = update(weights, gradient, state, rates)
            named["weights"] = cut.into(named["weights"], weights)
            named |= {name: cut.into(named[name], each) for name, each in zip(vectors, state, strict=False)}
            named |= dict(zip(["buffers"], buffers, strict=False))
            counted = list(state[len(vectors) :])
            row_losses = row_losses + losses
        kept = [named["buffers"]] if "buffers" in named else []
        return (named["weights"], *(named[name] for name in vectors), *counted, *kept, row_losses)

    return step


def sample_gradients(recipe: Recipe, names: Sequence[str]) -> GraphFunction:
    """From the values that `names` says, of `weights` f32[T], `inputs`, `labels` and `seed`, to the gradient of each
    row's own loss, f32[B, T].
    """

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (_gradients_of_rows(recipe, dict(zip(names, tensors, strict=True)))[0],)

    return gradients


def evaluation(recipe: Recipe, names: Sequence[str]) -> GraphFunction:
    """From the values that `names` says, of `weights`, `inputs` and `labels`, to those of `evaluation_outputs`."""
    objective = recipe.objective

    def evaluate(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        inputs = named["inputs"]
        batch = Batch(inputs, named.get("labels"), inputs.new_ones(inputs.shape[0]), {})
        parameters = split(named["weights"], recipe.parameters)
        losses, outputs = losses_and_outputs(recipe, parameters, batch, LayerContext(seed=EVALUATION_SEED))
        found = [losses]
        for head, scores in zip(objective.heads, objective.scores(outputs), strict=True):
            if head.name and head.loss is not None:
                found.append(head.row_losses(scores, batch))
            if head.has_answers:
                found.append(head.right_answers(scores, batch))
        return tuple(found)

    return evaluate


def evaluation_outputs(recipe: Recipe) -> list[str]:
    """`losses` f32[N]; of each head `correct` f32[N] where its answers are right or wrong: 1 or 0, or the share of the
    right ones if a sample has several. Several heads have names behind that, and `losses` f32[N] each of their own.
    """
    names = ["losses"]
    for head in recipe.objective.heads:
        names += [qualified("losses", head.name)] * bool(head.name and head.loss is not None)
        names += [qualified("correct", head.name)] * head.has_answers
    return names


def prediction(recipe: Recipe) -> GraphFunction:
    """`(weights f32[P], inputs f32[N, *shape])` to the scores f32[N, ...] of each head."""

    def predict(weights: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
        tensors = split(weights, recipe.parameters)
        with exportable_layers(recipe.module, LayerContext(seed=EVALUATION_SEED)):
            return recipe.objective.scores(functional_call(recipe.module, tensors, (inputs,)))

    return predict


def drawing(recipe: Recipe, plan: DrawingPlan) -> GraphFunction:
    """`(weights f32[P], latent f32[N, latent], labels i64[N])` to what the part that `plan` names makes of them;
    without `labels` where pictures have no classes.
    """
    part = DrawingPart(recipe.module, plan)

    def draw(weights: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        tensors = {f"whole.{name}": value for name, value in split(weights, recipe.parameters).items()}
        with exportable_layers(part, LayerContext(seed=EVALUATION_SEED)):
            return (functional_call(part, tensors, given),)

    return draw


def pulled(gradient: Tensor, named: Tensors, weights: Tensor, anchor: Tensor, *, clips: bool) -> Tensor:
    """The gradient with FedProx's, then clipped, then corrected (SCAFFOLD, Karimireddy et al. 2020, equation 3)."""
    if "proximal" in named:
        gradient = gradient + named["proximal"] * (weights - anchor)
    if clips and "gradient_clip" in named:
        gradient = clipped(gradient, named["gradient_clip"])
    return gradient + named["correction"] if "correction" in named else gradient


def _gradient(recipe: Recipe, named: Tensors, part: str = "") -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradient f32[T] of the weighted sum of the row losses, those losses f32[B], and the updated buffers.

    Of a `part`, the gradient of its loss by its parameters alone.
    """
    tensors = _trainable(recipe, named)
    buffers = _buffers(recipe, named)
    others = {} if not part else {name: each for name, each in tensors.items() if name not in recipe.names_in(part)}
    tensors = {name: each for name, each in tensors.items() if name not in others}
    context = LayerContext(named["row_weights"], named.get("seed"))
    real = (named["row_weights"] > 0).to(torch.float32)
    batch = Batch(named["inputs"], named.get("labels"), real, named)

    def losses_of(*values: Tensor) -> tuple[Tensor, Tensors]:
        given = dict(zip(tensors, values, strict=True)) | others | buffers
        return losses_and_outputs(recipe, given, batch, context, part)[0], context.updated

    # A vector-Jacobian product instead of `grad` of a mean: the weights enter as the cotangent of the rows, which
    # spares the step the mean and its backward pass.
    row_losses, pull_back, updated = vjp(losses_of, *tensors.values(), has_aux=True)  # type: ignore[misc] # see vjp
    gradient = join(pull_back(named["row_weights"]))
    changed = [updated.get(name, value) for name, value in buffers.items()]
    return gradient, row_losses, [join(changed)] if changed else []


def _per_sample_gradient(recipe: Recipe, named: Tensors) -> tuple[Tensor, Tensor, list[Tensor]]:
    """As `_gradient`, each row's gradient scaled to a norm of at most `gradient_clip` before they are added up."""
    matrix, row_losses = _gradients_of_rows(recipe, named)
    norms = torch.sqrt((matrix * matrix).sum(dim=1))
    scales = named["row_weights"] * torch.clamp(named["gradient_clip"] / norms, max=1)
    kept = [named["buffers"].clone()] if "buffers" in named else []  # an output needs a name of its own
    return (scales.unsqueeze(0) @ matrix).squeeze(0), row_losses, kept


def _gradients_of_rows(recipe: Recipe, named: Tensors) -> tuple[Tensor, Tensor]:
    """The gradient of each row's own loss, f32[B, T], and those losses f32[B]."""
    tensors = _trainable(recipe, named)
    buffers = _buffers(recipe, named)
    labels = named.get("labels", named["inputs"])

    def loss_of(values: Tensors, inputs: Tensor, label: Tensor, row: Tensor) -> Tensor:
        context = LayerContext(seed=named.get("seed"), row=row)
        given = label.unsqueeze(0) if "labels" in named else None
        batch = Batch(inputs.unsqueeze(0), given, inputs.new_ones(1), named)
        return losses_and_outputs(recipe, values | buffers, batch, context)[0].squeeze(0)

    rows = torch.arange(labels.shape[0])
    gradients, row_losses = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0, 0))(
        tensors, named["inputs"], labels, rows
    )
    return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1), row_losses


def _trainable(recipe: Recipe, named: Tensors) -> Tensors:
    return split(named["weights"], [parameter for parameter in recipe.parameters if parameter.trainable])


def _buffers(recipe: Recipe, named: Tensors) -> Tensors:
    buffers = [parameter for parameter in recipe.parameters if not parameter.trainable]
    return split(named["buffers"], buffers) if buffers else {}


def losses_and_outputs(
    recipe: Recipe, tensors: Tensors, batch: Batch, context: LayerContext, part: str = ""
) -> tuple[Tensor, object]:
    """The losses f32[B] with these parameters and buffers, of a part of the model if one is named, and what forward()
    returned.
    """
    with exportable_layers(recipe.module, context):
        outputs = functional_call(recipe.module, tensors, (batch.inputs,))
        return recipe.objective.row_losses(outputs, batch, part), outputs
