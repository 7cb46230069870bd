"""A recipe trained twice on the same mini-batches: by its exported graph, and by torch's own autograd."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd as DropoutLayer

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.graphs.training_graph import training_graph
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.scaling import ScalingSettings
from workbench.export.recipe.task_file import LossName, LossSettings, TaskFile

SAMPLES, STEPS, BATCH, LAST_BATCH = 40, 20, 8, 5
SEED = 11
CLASSES = LabelSchema(4)
TOLERANCE = 1e-5
TorchLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Rates:
    """The scalar inputs of a training graph."""

    learning_rate: float = 0.05
    weight_decay: float = 0.0
    gradient_clip: float = float("inf")
    proximal: float = 0.0


def make_recipe(
    module: nn.Module,
    shape: tuple[int, ...],
    *,
    label: LabelSchema = CLASSES,
    optimiser: str = "sgd",
    loss: LossName | None = None,
    settings: LossSettings | None = None,
    batch_norm: str = "train",
    rates: Rates = Rates(),
) -> Recipe:
    """A recipe around a module, ready to be exported; every other key of task.toml is arbitrary.

    Classes are learned with plain cross entropy where no loss is given, and nothing is scaled, as torch does it.
    """
    training = TrainingPlan(
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=rates.learning_rate,
        weight_decay=rates.weight_decay,
        gradient_clip=0 if np.isinf(rates.gradient_clip) else rates.gradient_clip,
        proximal=rates.proximal,
    )
    task = TaskFile(
        task="layers",
        title="Layers",
        input=InputSchema(list(shape), -9.0, 9.0),
        label=label,
        training=msgspec.structs.replace(training, optimiser=optimiser),
        update=UpdatePlan(keep_fraction=0.5),
        aggregation=AggregationPlan(buffer_size=1),
        loss=loss or ("cross_entropy" if label.kind == "class" else None),
        loss_settings=settings or LossSettings(),
        batch_norm=batch_norm,
        scaling=ScalingSettings(inputs="off", targets="off" if label.kind == "regression" else None),
    )
    recipe = Recipe(Path(), task, module)
    recipe.set_training(True)
    return recipe


def samples(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Rows of inputs and labels as the recipe takes them."""
    random, task = np.random.default_rng(3), recipe.task
    drawn = [_inputs(schema, random) for schema in task.each_input.values()]
    inputs = np.concatenate(drawn, axis=1).reshape(SAMPLES, *task.input.shape)
    row = np.concatenate([_labels(label, random) for label in task.each_label.values()], axis=1)
    return inputs.astype(np.float32), row[:, 0].astype(np.int64) if task.label.is_index else row.astype(np.float32)


def _inputs(schema: InputSchema, random: np.random.Generator) -> np.ndarray:
    if schema.whole:
        return random.integers(int(schema.minimum), int(schema.maximum) + 1, (SAMPLES, schema.size))
    return random.normal(size=(SAMPLES, schema.size))


def _labels(label: LabelSchema, random: np.random.Generator) -> np.ndarray:
    if label.kind == "class":
        return random.integers(0, label.classes, (SAMPLES, label.size))
    values = random.normal(size=(SAMPLES, label.size))
    return values > 0 if label.kind == "multi_label" else values


def batches() -> tuple[np.ndarray, np.ndarray]:
    """Row indices and mask; the last mini-batch is a short one."""
    rows = np.random.default_rng(4).integers(0, SAMPLES, (STEPS, BATCH))
    mask = np.ones((STEPS, BATCH), dtype=np.float32)
    mask[-1, LAST_BATCH:] = 0
    return rows, mask


def initial_weights(recipe: Recipe) -> np.ndarray:
    """The flat vector that `train.onnx` starts from."""
    return torch.cat([tensor.ravel() for tensor in recipe.tensors.values()]).numpy().copy()


def train_exported(
    recipe: Recipe, rates: Rates = Rates(), *, per_sample: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Trained weights and losses of the exported graph."""
    return run_training(export(recipe, per_sample=per_sample), recipe, rates or Rates(), *batches())


def export(recipe: Recipe, *, per_sample: bool = False) -> onnxruntime.InferenceSession:
    """The training graph in a session."""
    model = checked_model(training_graph(recipe, per_sample=per_sample)).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_training(
    session: onnxruntime.InferenceSession, recipe: Recipe, rates: Rates, rows: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Trained weights and losses for these mini-batches."""
    inputs, labels = samples(recipe)
    scalars = {name: np.array(getattr(rates, name), np.float32) for name in Rates.__dataclass_fields__}
    feeds = {"weights": initial_weights(recipe), "inputs": inputs, "labels": labels, "batches": rows, "mask": mask}
    feeds |= scalars | {"seed": np.array(SEED)}
    trained, losses = session.run(None, {entry.name: feeds[entry.name] for entry in session.get_inputs()})
    return trained, losses


def train_with_torch(
    recipe: Recipe,
    loss: TorchLoss,
    rates: Rates,
    make_optimiser: Callable[..., torch.optim.Optimizer],
    *,
    labels: Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The same as `train_exported`, by autograd and torch.optim; it changes the recipe's module.

    `loss` is given what forward() returns and the labels' rows, or those of `labels`.
    """
    inputs, own = map(torch.from_numpy, samples(recipe))
    labels = own if labels is None else labels
    module, parameters = recipe.module, list(recipe.module.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    optimiser = make_optimiser(parameters, lr=rates.learning_rate, weight_decay=rates.weight_decay)
    losses = []
    for step, (row, real) in enumerate(zip(*batches(), strict=True)):
        chosen = torch.from_numpy(row[real > 0])
        optimiser.zero_grad()
        value = loss(forward(module, inputs[chosen], step), labels[chosen])
        distance = sum(((now - start) ** 2).sum() for now, start in zip(parameters, before, strict=True))
        (value + rates.proximal / 2 * distance).backward()
        nn.utils.clip_grad_norm_(parameters, rates.gradient_clip)
        optimiser.step()
        losses.append(value.item())
    return initial_weights(recipe), np.array(losses)


def has_dropout(module: nn.Module) -> bool:
    """Whether any layer draws a mask in training. Recurrent and attention layers keep their rate in `dropout`."""
    rates = [part.p if isinstance(part, DropoutLayer) else getattr(part, "dropout", 0) for part in module.modules()]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def forward(module: nn.Module, inputs: Tensor, step: int) -> Tensor:
    """The module as it is; with dropout, on the masks that the exported graph draws in this step."""
    if not has_dropout(module):
        return module(inputs)
    context = LayerContext(torch.full(inputs.shape[:1], 1 / len(inputs)), torch.tensor(SEED + step))
    with exportable_layers(module, context):
        return module(inputs)


def with_head(*layers: nn.Module) -> nn.Module:
    """The layers, and a linear head for four classes on whatever they give."""
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))


def build(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """The model, the same every time, and the shape of one sample."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = make().eval()
        module(torch.zeros(2, *shape))
        return module, shape


def check_training(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Plain SGD on the module ends where torch's own ends, and has gone somewhere."""
    recipe = make_recipe(module, shape)
    before = initial_weights(recipe)
    trained, losses = train_exported(recipe)
    expected, expected_losses = train_with_torch(recipe, functional.cross_entropy, Rates(), torch.optim.SGD)
    assert np.abs(trained - before).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)
