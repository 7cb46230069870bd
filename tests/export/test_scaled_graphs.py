"""Scaling inside the graphs: raw values in, raw predictions out, and no reading that makes a round overflow."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.codec import read_weights
from fleet_protocol.scaling import MOST_DEVIATIONS, Scale, Scaling
from fleet_protocol.task_description import TaskDescription
from tests.support.tables import export_table_bundle, write_table_recipe
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import read_recipe

MEAN, DEVIATION = [1e5, 20.0, 0.5], [2000.0, 4.0, 0.1]
SCALING = Scaling(Scale(MEAN, DEVIATION), Scale([250.0], [30.0]))
OFF = 'inputs = "off"\ntargets = "off"'
COUNT = 24


class Trained:
    """A bundle's graphs, with the scale that its task is to have."""

    def __init__(self, folder: Path, scaling: Scaling) -> None:
        bundle: Bundle = load_bundle(folder)
        self.task: TaskDescription = msgspec.structs.replace(bundle.description, scaling=scaling)
        self.weights = read_weights(bundle.weights, self.task.parameters)
        self.runner = BundleRunner(self.task, bundle.files)
        self._engine = OnnxStepEngine.of_task(self.task, bundle.files)  # type: ignore[arg-type] # content serves too

    def train(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        plan = plan_batches(len(samples), 10, 8, seed=1)
        return self._engine.train(self.weights, samples, plan, Rates(0.01))


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("scaled")
    export_table_bundle(folder)
    return Trained(folder / "bundle", SCALING)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("plain")
    export_table_bundle(folder, missing="refuse", scaling=OFF)
    return Trained(folder / "bundle", Scaling())


def raw_and_scaled() -> tuple[Samples, Samples]:
    """The same samples as a device has them, and as the model is to see them."""
    generator = np.random.default_rng(2)
    inputs = generator.normal(size=(COUNT, 3)).astype(np.float32)
    targets = generator.normal(size=(COUNT, 1)).astype(np.float32)
    raw = Samples((inputs * DEVIATION + MEAN).astype(np.float32), (targets * 30 + 250).astype(np.float32))
    return raw, Samples(inputs, targets)


def test_training_on_raw_values_is_training_on_scaled_ones(scaled, plain):
    raw, unit = raw_and_scaled()
    for found, expected in zip(scaled.train(raw), plain.train(unit), strict=True):
        assert np.allclose(found, expected, rtol=0.02, atol=2e-3)


def test_losses_are_of_scaled_targets_and_predictions_in_the_unit_of_the_targets(scaled, plain):
    raw, unit = raw_and_scaled()
    losses = plain.runner.evaluate(plain.weights, unit).losses
    assert np.allclose(scaled.runner.evaluate(scaled.weights, raw).losses, losses, rtol=0.02, atol=1e-3)
    scores = plain.runner.predict(plain.weights, unit.inputs)
    assert np.allclose(scaled.runner.predict(scaled.weights, raw.inputs), scores * 30 + 250, atol=0.2)


def test_missing_value_is_the_mean_of_its_column(scaled):
    raw, _ = raw_and_scaled()
    lacking, filled = raw.inputs.copy(), raw.inputs.copy()
    lacking[::3, 1] = np.nan
    filled[::3, 1] = MEAN[1]
    assert np.array_equal(scaled.runner.predict(scaled.weights, lacking), scaled.runner.predict(scaled.weights, filled))


@pytest.mark.parametrize("absurd", [1e9, -3.4e38])
def test_absurd_reading_counts_as_a_bound_number_of_deviations(scaled, absurd):
    raw, _ = raw_and_scaled()
    inputs, bounded = raw.inputs.copy(), raw.inputs.copy()
    inputs[4, 2] = absurd
    bounded[4, 2] = MEAN[2] + np.sign(absurd) * MOST_DEVIATIONS * DEVIATION[2]
    found = scaled.runner.predict(scaled.weights, inputs)
    assert np.allclose(found, scaled.runner.predict(scaled.weights, bounded), rtol=1e-4)


@pytest.mark.parametrize("absurd", [1e9, -3.4e38])
def test_round_with_an_absurd_target_stays_finite(scaled, absurd):
    raw, _ = raw_and_scaled()
    raw.labels[0] = absurd
    weights, losses = scaled.train(raw)
    assert np.isfinite(weights).all()
    assert losses.max() < 2 * MOST_DEVIATIONS**2


def test_description_without_a_scale_says_nothing_of_it(tmp_path):
    recipe = write_table_recipe(tmp_path / "recipe", missing="refuse", scaling=OFF)
    description = msgspec.json.decode(bundle_files(read_recipe(recipe))["task.json"])
    assert "scaling" not in description
    assert "missing" not in description["input"]


def test_same_recipe_gives_the_same_bytes(tmp_path):
    recipe = write_table_recipe(tmp_path / "recipe")
    assert bundle_files(read_recipe(recipe)) == bundle_files(read_recipe(recipe))


def test_what_is_given_back_is_in_the_unit_of_the_inputs(tmp_path):
    recipe = write_table_recipe(tmp_path / "recipe")
    (recipe / "model.py").write_text("from torch import nn\n\ndef build():\n    return nn.Linear(3, 3)\n")
    text = (recipe / "task.toml").read_text()
    (recipe / "task.toml").write_text(text.replace('"regression"\nvalues = 1', '"reconstruction"'))
    files = bundle_files(read_recipe(recipe))
    task = msgspec.json.decode(files["task.json"], type=TaskDescription)
    task = msgspec.structs.replace(task, scaling=Scaling(SCALING.inputs))
    raw, unit = raw_and_scaled()
    weights = read_weights(files["weights.safetensors"], task.parameters)
    matrix, bias = weights[:9].reshape(3, 3), weights[9:]
    found = BundleRunner(task, files).predict(weights, raw.inputs)
    assert np.allclose((found - MEAN) / DEVIATION, unit.inputs @ matrix.T + bias, atol=0.02)
