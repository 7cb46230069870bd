"""Cutting a module in two at the submodule that `task.toml` names: what is frozen and what trains on its features.

The backbone is everything up to and including the output of that submodule; preprocessing in front of it belongs to
it. The head is the same module with its own parameter names, except that the named submodule gives the features that
the head is called with. The two are one module again only if nothing else of the input reaches the output, which is
tried out on random inputs.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import torch
from onnx import GraphProto
from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema
from workbench.export.backbone.int8_precision import terms_of_weights
from workbench.export.backbone.int8_weights import quantise_weights
from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext, UnexportableError
from workbench.export.recipe.probe import probe_inputs
from workbench.export.recipe.recipe import Recipe
from workbench.recipe_folder import TASK_FILE

PROBE_ROWS = 4
PROBE_SEED = 0
PROBE_BOUND = 1000.0
"""Keeps inputs with hardly any bounds from overflowing in the model."""
TOLERANCE = 1e-4
"""Largest difference between module and composition, in units of the largest output."""


@dataclass(frozen=True, slots=True)
class Split:
    """The frozen half of a recipe's module, and the other as a recipe of its own, whose inputs are features."""

    whole: Recipe
    head: Recipe

    @property
    def feature_shape(self) -> list[int]:
        """Of one sample, without the batch axis."""
        return self.head.task.input.shape

    @property
    def is_quantised(self) -> bool:
        """Whether the backbone's weights travel as int8, and its features differ from torch's on purpose."""
        settings = self.whole.task.backbone
        return settings is not None and settings.quantise == "int8"

    def features(self, inputs: Tensor) -> Tensor:
        """f32[N, *input.shape] to f32[N, *feature_shape]. The module must be in evaluation mode."""
        with exportable_layers(self.whole.module, LayerContext()):
            (features,) = _outputs_inside(self.whole, inputs)[0]
        return features


class _Given(nn.Module):
    """Takes the backbone's place. `features` are set only while the head runs."""

    features: Tensor | None = None

    def forward(self, *_: object, **__: object) -> Tensor | None:
        """The features that the head was called with."""
        return self.features


def split(recipe: Recipe) -> Split:
    """Cut the recipe's module at `backbone.module`, and check that the halves make up the whole.

    Raises:
        ConfigurationError: there is no such submodule, or the module isn't `head(backbone(inputs))`.
    """
    recipe.set_training(False)
    inputs = _probe(recipe.task.input)
    with torch.no_grad():
        outputs, scores = _outputs_inside(recipe, inputs)
        features = _only_tensor(recipe, outputs)
        halves = Split(recipe, _head(recipe, list(features.shape[1:])))
        _check_rows_are_alone(recipe, features, _kept(halves, inputs[:1]))
    _check_composition(recipe, halves.head, features, scores)
    return halves


def _kept(halves: Split, inputs: Tensor) -> Tensor:
    """Features as they are computed once and kept."""
    try:
        return halves.features(inputs)
    except UnexportableError as error:
        raise _wrong(halves.whole, f"can't be exported: {error}") from error


def backbone_graph(halves: Split) -> GraphProto:
    """The graph of `backbone.onnx`: `inputs` f32[N, *input.shape] to `features` f32[N, *feature_shape].

    With `quantise = "int8"` its weights are int8, in two tensors where one is too coarse; what it takes and gives is
    float32 all the same.
    """
    halves.whole.set_training(False)
    inputs = GraphInput("inputs", (BATCH, *halves.whole.task.input.shape))
    graph = convert(lambda tensor: (halves.features(tensor),), [inputs], ["features"])
    graph.name = "backbone"
    if halves.is_quantised:
        quantise_weights(graph, terms_of_weights(graph, _probe(halves.whole.task.input).numpy()))
    return graph


def _outputs_inside(recipe: Recipe, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """What the named submodule gives each time it is called while the whole module runs, and what the module gives."""
    outputs: list[Tensor] = []
    hook = _named(recipe).register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        return outputs, recipe.module(inputs)
    finally:
        hook.remove()


def _named(recipe: Recipe) -> nn.Module:
    try:
        return recipe.module.get_submodule(recipe.backbone)
    except AttributeError as error:
        known = ", ".join(repr(child) for child, _ in recipe.module.named_children())
        raise _wrong(
            recipe, f"is no submodule of the model; it has {known or 'none'}; name one, or one inside of it"
        ) from error


def _only_tensor(recipe: Recipe, outputs: list[Tensor]) -> Tensor:
    if len(outputs) != 1:
        raise _wrong(
            recipe, f"runs {len(outputs)} times for one input; name one that runs once, such as one around them all"
        )
    (features,) = outputs
    if not isinstance(features, Tensor) or features.dtype != torch.float32 or features.dim() < 2:
        found = f"{features.dtype} {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise _wrong(recipe, f"gives {found}; name one that gives a float32 tensor with one row per sample")
    return features


def _head(recipe: Recipe, feature_shape: list[int]) -> Recipe:
    module = copy.deepcopy(recipe.module)
    given = _Given()
    parent, _, child = recipe.backbone.rpartition(".")
    setattr(module.get_submodule(parent), child, given)
    module.__dict__["forward"] = partial(_run_head, module.forward, given, probe_inputs(recipe.task, 1))
    features = InputSchema(feature_shape, -math.inf, math.inf)
    scaling = msgspec.structs.replace(recipe.task.scaling, inputs="off")  # features are as the backbone gives them
    task = msgspec.structs.replace(recipe.task, input=features, inputs={}, backbone=None, scaling=scaling)
    head = Recipe(recipe.folder, task, module, recipe.own_losses)
    head.set_training(False)
    return head


def _run_head(whole: Callable[[Tensor], Tensor], given: _Given, sample: Tensor, features: Tensor) -> Tensor:
    """The head's forward pass. What stands before the backbone sees copies of a `sample` f32[1, *shape] that fits."""
    given.features = features
    try:
        return whole(sample.expand(features.shape[0], *sample.shape[1:]))
    finally:
        given.features = None


def _check_rows_are_alone(recipe: Recipe, together: Tensor, alone: Tensor) -> None:
    if not _close(together[:1], alone):
        raise _wrong(
            recipe,
            "gives a sample other features when other samples stand beside it, so they can't be kept; normalise each"
            " one by itself, as LayerNorm does",
        )


def _check_composition(recipe: Recipe, head: Recipe, features: Tensor, scores: Tensor) -> None:
    composed = head.module(features)
    if not _close(composed, scores):
        distance = float((composed - scores).detach().abs().max()) if composed.shape == scores.shape else float("inf")
        raise _wrong(
            recipe,
            f"isn't the only way from the inputs to the outputs: model and head(backbone(inputs)) differ by"
            f" {distance:.3g}; name a submodule that every path goes through",
        )
    if not head.task.label.outputs and composed.shape != features.shape:
        raise _wrong(
            recipe,
            f"gives features {tuple(features.shape[1:])}; label.kind 'reconstruction' then means that the head gives"
            f" them back, but it gives {tuple(composed.shape[1:])}; let it end in that shape, or name another"
            " submodule",
        )
    names = [parameter.name for parameter in head.parameters if parameter.trainable]
    values = dict(head.module.named_parameters())
    gradients = torch.autograd.grad(composed.sum(), [values[name] for name in names], allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            kept = ", ".join(repr(f"{child}.*") for child in _behind(names, gradients))
            raise _wrong(
                recipe, f"comes after the parameter {name!r}, which can't train then; write trainable = [{kept}]"
            )


def _behind(names: Sequence[str], gradients: Sequence[Tensor | None]) -> list[str]:
    """The submodules that have parameters and come after the backbone with all of them, the outermost ones."""
    before = {name for name, gradient in zip(names, gradients, strict=True) if gradient is None}
    behind: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        outermost = (each for each in prefixes if not any(other.startswith(f"{each}.") for other in before))
        if name not in before and (found := next(outermost, None)):
            behind[found] = None
    return list(behind)


def _probe(schema: InputSchema) -> Tensor:
    """Random inputs f32[PROBE_ROWS, *shape] within the schema's bounds, the same every time."""
    unit = torch.rand([PROBE_ROWS, *schema.shape], generator=torch.Generator().manual_seed(PROBE_SEED))
    low, high = (max(-PROBE_BOUND, min(bound, PROBE_BOUND)) for bound in (schema.minimum, schema.maximum))
    return low + unit * (high - low)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=TOLERANCE * float(other.abs().max()))


def _wrong(recipe: Recipe, what: str) -> ConfigurationError:
    return ConfigurationError(f"{recipe.folder / TASK_FILE}: backbone.module {recipe.backbone!r} {what}")
