"""The shipped generator and discriminator train through their cuts as the whole pair does, and as torch does."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.drawing import load
from benchmarks.split_gans.variant import write_variant
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, plan_batches
from fleet_protocol.codec import read_weights
from tests.support.chained_blocks import train_chained, train_whole
from workbench.export.bundle_writer import export_bundle
from workbench.export.graphs.flat_weights import join
from workbench.export.layers.layer_context import LayerContext
from workbench.export.layers.seeded_noise import SeededNoise
from workbench.export.recipe.recipe import Recipe, read_recipe
from workbench.export.trials.random_samples import random_samples
from workbench.recipe_folder import find_bundle, find_recipe

STEPS, ROWS, SAMPLES, TOLERANCE = 20, 8, 40, 1e-5
SHIPPED: Mapping[str, object] = {}
HINGE = {"LOSS": "hinge", "SPECTRAL_NORM": True, "WIDTH": 1 / 16}


def with_constants(constants: Mapping[str, object], folder: Path) -> Recipe:
    return read_recipe(write_variant(find_recipe("mnist_gan"), folder / "pair", constants, classes=10))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    return with_constants(SHIPPED, tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="module")
def pair(recipe: Recipe) -> ExportedTask:
    return ExportedTask.of(recipe)


def work_of(pair: ExportedTask) -> tuple[Samples, BatchPlan]:
    samples = random_samples(pair.task)
    return samples.take(slice(0, SAMPLES)), plan_batches(SAMPLES, STEPS, ROWS, seed=1)


def trained_by_torch(recipe: Recipe, weights: np.ndarray, samples: Samples, plan: BatchPlan) -> np.ndarray:
    """Weights f32[P] after torch's own steps: the discriminator's, then the generator's against the new one. The same
    random numbers are drawn as in a graph."""
    load(recipe, weights)
    recipe.set_training(True)
    module, rate = recipe.module, recipe.task.training.learning_rate
    parts = {name: torch.optim.Adam(module.get_submodule(name).parameters(), lr=rate) for name in recipe.task.parts}
    for step, rows in enumerate(plan.rows):
        inputs = torch.from_numpy(samples.inputs[rows])
        for name, optimiser in parts.items():
            with SeededNoise(LayerContext(torch.full((ROWS,), 1 / ROWS), torch.tensor(plan.seed + step))):
                outputs = module(inputs)
            optimiser.zero_grad()
            recipe.own_losses[name].function(outputs).mean().backward()
            optimiser.step()
    return join(list(recipe.tensors.values())).numpy().copy()


def check(pair: ExportedTask, names: list[str]) -> None:
    samples, plan = work_of(pair)
    expected, losses = train_whole(pair, samples, plan)
    assert np.abs(expected - pair.weights).max() > 1e-3
    for name in names:
        trained, chained_losses = train_chained(pair, pair.plan.cut(name), samples, plan)
        np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE, err_msg=name)
        np.testing.assert_allclose(chained_losses, losses, rtol=0, atol=TOLERANCE, err_msg=name)


def check_against_torch(pair: ExportedTask, recipe: Recipe) -> None:
    """Adam's step is as long where a gradient is nothing but rounding, which torch and a graph do differently: one
    value in ten thousand may be off, by less than a step."""
    samples, plan = work_of(pair)
    expected = trained_by_torch(recipe, pair.weights, samples, plan)
    trained, _ = train_chained(pair, pair.plan.cut("g3ht-d3ht"), samples, plan)
    assert np.abs(expected - pair.weights).max() > 1e-3
    apart = np.abs(trained - expected)
    assert (apart > TOLERANCE).mean() < 1e-4
    assert apart.max() < recipe.task.training.learning_rate


def test_the_shipped_pair_has_every_cut_of_the_paper(recipe: Recipe):
    assert len(recipe.task.split.cuts) == 16
    assert set(recipe.own_losses) == {"discriminator", "generator"}


@pytest.mark.long
def test_chained_blocks_take_the_steps_that_torch_takes(pair: ExportedTask, recipe: Recipe):
    check_against_torch(pair, recipe)


@pytest.mark.long
def test_all_sixteen_cuts_train_as_the_whole_pair(pair: ExportedTask):
    check(pair, [cut.name for cut in pair.plan.cuts])


@pytest.mark.long
def test_with_hinge_losses_and_spectral_normalisation_too(tmp_path: Path):
    recipe = with_constants(HINGE, tmp_path)
    pair = ExportedTask.of(recipe)
    check(pair, ["g3-d3", "g3ht-d3ht"])
    check_against_torch(pair, recipe)


def test_constant_that_a_recipe_lacks_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"model.py: has no line `DEPTH: Final = ...`"):
        with_constants({"DEPTH": 3}, tmp_path)


@pytest.mark.long
def test_the_shipped_bundle_is_what_the_recipe_exports(tmp_path: Path):
    shipped, fresh = load_bundle(find_bundle("mnist_gan")), tmp_path / "bundle"
    export_bundle(find_recipe("mnist_gan"), fresh)
    exported = load_bundle(fresh)
    assert replace(shipped.description, files={}) == replace(exported.description, files={})
    weights = [read_weights(bundle.weights, bundle.description.parameters) for bundle in (shipped, exported)]
    np.testing.assert_allclose(weights[0], weights[1], rtol=0, atol=1e-6)
