"""Refusals that have no row in the tables of models or recipes: of the second engine, of what draws, of the trials."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pytest
import torch
from onnx import GraphProto, TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime import graph_admission
from fleet_protocol.bundle_files import PREDICT_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.task_description import TaskDescription
from tests.export.refused_models import Apply
from tests.support.recipes import write_recipe
from tests.support.training import Rates, build, make_recipe
from workbench.export.backbone.backbone import backbone_graph, split
from workbench.export.bundle_writer import admitted, export_bundle
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.conversion.unexportable import explained
from workbench.export.graphs.inference_graphs import prediction_graph
from workbench.export.graphs.objective_graph import objective_graph
from workbench.export.graphs.training_graph import training_graph
from workbench.export.layers import exportable_layers
from workbench.export.recipe.own_loss import OwnLoss
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.scaling import ScalingSettings
from workbench.export.recipe.task_file import BackboneSettings, PartSettings
from workbench.export.trials.compared_steps import session_of
from workbench.export.trials.compared_values import first_difference
from workbench.export.trials.range_test import find_learning_rate
from workbench.export.trials.torch_comparison import check_against_torch, check_backbone

VECTOR = (8,)


def linear() -> nn.Module:
    return nn.Linear(8, 4)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))


def positions() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (4, 2)))


def recipe_of(make: Callable[[], nn.Module] = linear, settings: dict[str, object] | None = None, **task) -> Recipe:
    """A recipe around a small model; `settings` are those of `make_recipe`, `task` are fields of its task."""
    recipe = make_recipe(*build(make, VECTOR), **(settings or {}))
    recipe = replace(recipe, task=msgspec.structs.replace(recipe.task, **task))
    recipe.set_training(True)
    return recipe


def clipping_each() -> Recipe:
    recipe = recipe_of(settings={"rates": Rates(gradient_clip=1.0)})
    training = msgspec.structs.replace(recipe.task.training, per_sample_gradients=True)
    return replace(recipe, task=msgspec.structs.replace(recipe.task, training=training))


def correcting(**rates: float) -> Recipe:
    recipe = recipe_of(settings={"rates": Rates(**rates)})
    training = msgspec.structs.replace(recipe.task.training, correction="scaffold")
    return replace(recipe, task=msgspec.structs.replace(recipe.task, training=training))


def in_turn() -> Recipe:
    loss = OwnLoss(lambda outputs: (outputs**2).mean(dim=1), ("outputs",))
    return replace(recipe_of(parts={"all": PartSettings(("*",))}), own_losses={"all": loss})


@dataclass(frozen=True, slots=True)
class OtherEngine:
    """What the second engine is asked for and refuses, and what is done instead: the graph of a recipe."""

    recipe: Callable[[], Recipe]
    sentence: str
    instead: Callable[[], object]


DECAYED = {"rates": Rates(weight_decay=0.1, gradient_clip=1.0)}
UNCLIPPED = {"rates": Rates(weight_decay=0.1)}
OF_POSITIONS = {"label": LabelSchema(4, shape=[2])}
OTHER_ENGINE = {
    "optimiser": OtherEngine(
        lambda: recipe_of(settings={"optimiser": "nesterov"}),
        "engine ort-training has no optimiser 'nesterov'; choose one of sgd, adamw, or export without",
        lambda: objective_graph(recipe_of(settings={"optimiser": "adamw"})),
    ),
    "clipped decay": OtherEngine(
        lambda: recipe_of(settings=DECAYED),
        "would clip the weight decay of sgd too, .*; set one of weight_decay and gradient_clip to 0",
        lambda: objective_graph(recipe_of(settings=UNCLIPPED)),
    ),
    "balanced positions": OtherEngine(
        lambda: recipe_of(positions, OF_POSITIONS, loss="balanced_cross_entropy"),
        "can't balance the classes of positions .*; write loss = 'cross_entropy'",
        lambda: objective_graph(recipe_of(positions, OF_POSITIONS, loss="cross_entropy")),
    ),
    "scales": OtherEngine(
        lambda: recipe_of(scaling=ScalingSettings("fleet")),
        r"can't scale inputs or targets; write \[scaling\] inputs = 'off' and targets = 'off'",
        lambda: objective_graph(recipe_of(scaling=ScalingSettings("off"))),
    ),
    "parts": OtherEngine(in_turn, "can't train parts in turn; export without", lambda: training_graph(in_turn())),
    "clipped correction": OtherEngine(
        lambda: correcting(gradient_clip=1.0),
        "would clip the correction too, .*; leave one of correction and gradient_clip out, or export without",
        lambda: objective_graph(correcting()),
    ),
    "single gradients": OtherEngine(
        clipping_each,
        "can't clip per-sample gradients; export without",
        lambda: training_graph(clipping_each(), per_sample=True),
    ),
    "moving statistics": OtherEngine(
        lambda: recipe_of(normed),
        "can't move the buffer '1.running_mean'; write batch_norm = 'frozen' or take GroupNorm",
        lambda: objective_graph(recipe_of(normed, {"batch_norm": "frozen"})),
    ),
}


@pytest.mark.parametrize("name", OTHER_ENGINE)
def test_what_the_second_engine_lacks_is_refused_with_what_works_instead(name: str):
    case = OTHER_ENGINE[name]
    with pytest.raises(ConfigurationError, match=case.sentence):
        objective_graph(case.recipe())
    assert checked_model(case.instead())


def test_layer_that_predicts_by_its_batch_is_refused_and_one_with_statistics_serves():
    def predicting(**settings: bool) -> GraphProto:
        recipe = recipe_of(lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, **settings), nn.Linear(6, 4)))
        recipe.set_training(False)
        with explained(PREDICT_FILE, recipe.module, torch.zeros(1, 8)):
            return prediction_graph(recipe)

    said = r"predict\.onnx: module '1' \(BatchNorm1d\) .*depends on the samples .*; leave out track_running_stats"
    with pytest.raises(ConfigurationError, match=said):
        predicting(track_running_stats=False)
    assert checked_model(predicting())


def test_frozen_part_that_draws_is_refused_as_its_features_are_kept():
    def drawing(*, training: bool) -> Recipe:
        part = lambda: Apply(lambda _, x: functional.dropout(x, 0.5, training))  # noqa: E731 - made anew
        model = lambda: nn.Sequential(nn.Linear(8, 6), part(), nn.Linear(6, 4))  # noqa: E731
        return recipe_of(model, trainable=("2.*",), backbone=BackboneSettings("1"))

    with pytest.raises(
        ConfigurationError, match=r"'1' can't be exported: it draws .* kept; draw only where self\.training"
    ):
        split(drawing(training=True))
    assert split(drawing(training=False)).feature_shape == [6]


def description(recipe: Recipe) -> TaskDescription:
    task = recipe.task
    return TaskDescription(
        format=1,
        task=task.task,
        title=task.title,
        input=task.input,
        label=task.label,
        parameters=recipe.parameters,
        training=task.training,
        update=task.update,
        aggregation=task.aggregation,
        files={},
    )


def linear_layers_wrong():
    plain = functional.linear
    return mock.patch.object(exportable_layers, "_MATRIX_LINEAR", lambda *given: plain(*given) * 1.0001)


def features_that_differ(model: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Compare a backbone with torch, where linear layers are exported as something else."""
    make = lambda: nn.Sequential(Apply(model, layer=nn.Linear(8, 6)), nn.Linear(6, 4))  # noqa: E731 - made anew
    halves = split(recipe_of(make, trainable=("1.*",), backbone=BackboneSettings("0")))
    with linear_layers_wrong():
        check_backbone(halves, checked_model(backbone_graph(halves)), description(halves.whole))


def test_backbone_that_is_exported_as_something_else_is_refused_and_other_layers_serve():
    said = r"backbone\.onnx: .*'0\.layer' \(Linear\) is exported as something else; replace it in model\.py by layers"
    with pytest.raises(ConfigurationError, match=said):
        features_that_differ(lambda part, x: part.layer(x))
    features_that_differ(lambda part, x: x @ part.layer.weight.T + part.layer.bias)


def predictions_that_differ(model: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Compare predictions with torch's, where linear layers are exported as something else."""
    with linear_layers_wrong():
        recipe = recipe_of(lambda: Apply(model, layer=nn.Linear(8, 4)))
        recipe.set_training(False)
        predicting = {PREDICT_FILE: checked_model(prediction_graph(recipe))}
        check_against_torch(recipe, predicting, description(recipe), lambda samples: samples)


def test_layer_that_is_exported_as_something_else_is_refused_and_others_serve():
    said = r"predict\.onnx: with .*'layer' \(Linear\) is exported as something else; replace it in model\.py by layers"
    with pytest.raises(ConfigurationError, match=said):
        predictions_that_differ(lambda part, x: part.layer(x))
    predictions_that_differ(lambda part, x: x @ part.layer.weight.T + part.layer.bias)


class Pairs(nn.Module):
    """Two rows of four of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.reshape(-1, 4)


def test_graph_that_fails_on_other_numbers_of_rows_is_refused_and_a_free_number_serves():
    recipe = recipe_of(Pairs)
    recipe.set_training(False)
    shapes = {"weights": [36], "inputs": [None, 8]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    scores = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 4])]

    def check(rows: int) -> None:
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [rows, 4])
        reshape = helper.make_node("Reshape", ["inputs", "shape"], ["scores"])
        models = {PREDICT_FILE: checked_model(helper.make_graph([reshape], "g", values, scores, [shape]))}
        check_against_torch(recipe, models, description(recipe), lambda samples: samples)

    with pytest.raises(ConfigurationError, match=r"makes a constant of the number of samples .*; write x\.shape\[0\]"):
        check(14)
    check(-1)


def test_batch_of_one_that_torch_refuses_is_told_and_two_serve():
    def normalised(values: Tensor) -> tuple[Tensor, ...]:
        return (functional.batch_norm(values, None, None, training=True),)

    def compare(rows: int) -> None:
        values = torch.rand(rows, 3)
        found = [functional.batch_norm(values.double(), None, None, training=True).numpy()] if rows > 1 else []
        assert first_difference("train.onnx", "a full batch", ["rows"], found, normalised, [values]) is None

    with pytest.raises(ConfigurationError, match=r"refuses to train with a full batch: .*; write a batch_size of 2 or"):
        compare(1)
    compare(2)


def test_inputs_that_no_rate_learns_from_are_told_and_scaled_ones_are_learned_from():
    random = np.random.default_rng(0)
    features, wanted = random.normal(size=(40, 3)), random.normal(size=40)

    def descent(scale: float) -> Callable[[float, int], np.ndarray]:
        def train(rate: float, steps: int) -> np.ndarray:
            weights, losses = np.zeros(3), []
            with np.errstate(over="ignore", invalid="ignore"):
                for _ in range(steps):
                    missed = scale * features @ weights - wanted
                    losses.append((missed**2).mean())
                    weights = weights - rate * 2 * scale * features.T @ missed / len(wanted)
            return np.array(losses)

        return train

    with pytest.raises(ConfigurationError, match=r"no learning rate .* lowers the loss .*; scale the inputs to about"):
        find_learning_rate(descent(1e6))
    assert find_learning_rate(descent(1.0)).chosen > 0


def test_graph_larger_than_devices_take_is_refused_and_a_smaller_model_serves(monkeypatch: pytest.MonkeyPatch):
    def predicting(layers: int) -> bytes:
        recipe = recipe_of(lambda: nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)), nn.Linear(8, 4)))
        recipe.set_training(False)
        return admitted(PREDICT_FILE, checked_model(prediction_graph(recipe)))

    monkeypatch.setattr(graph_admission, "MAX_GRAPH_FIELDS", 200)
    with pytest.raises(ConfigurationError, match=r"predict\.onnx has more than 200 fields; .* or make the model sm"):
        predicting(20)
    assert predicting(1)


def test_graph_that_can_not_be_loaded_is_told_and_one_without_that_layer_is_loaded():
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 5, 5])
    pooled = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1, 1, None, None])

    def padded(pads: int) -> None:
        pool = helper.make_node("MaxPool", ["image"], ["pooled"], kernel_shape=[2, 2], pads=[0, 0, pads, pads])
        session_of(checked_model(helper.make_graph([pool], "pool", [image], [pooled])))

    with pytest.raises(ConfigurationError, match=r"can't load a graph of this model .*Pad should be smaller.*; repl"):
        padded(2)
    padded(1)


def test_bundle_that_can_not_be_written_is_told_and_another_folder_serves(tmp_path: Path):
    model = "from torch import nn\n\ndef build():\n    return nn.Linear(8, 3)\n"
    recipe = write_recipe(tmp_path / "recipe", model, "[label]\nclasses = 3\n")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/out: can't be written: Not a directory; choose another --out"):
        export_bundle(recipe, tmp_path / "file" / "out", tell=lambda _: None)
    export_bundle(recipe, tmp_path / "out", tell=lambda _: None)
    assert (tmp_path / "out" / "task.json").is_file()
