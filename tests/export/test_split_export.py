"""A recipe with `[split]` gives a bundle that says what its blocks are, and has a graph for each pass of each."""

from pathlib import Path

import pytest

from fleet_protocol.bundle import verify_bundle
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription, split_files
from tests.support.recipes import write_recipe
from workbench.export.blocks.block_graphs import block_models
from workbench.export.blocks.division import divide
from workbench.export.bundle_writer import admitted, bundle_files
from workbench.export.recipe.recipe import Recipe, read_recipe
from workbench.recipe_folder import TASK_FILE

MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(),
        nn.Linear(6, 5), nn.Dropout(0.2), nn.Linear(5, 5), nn.Linear(5, 3),
    )
"""
TABLES = """
[label]
classes = 3
[split]
points = ["2", "4", "5"]
activations = "float16"
distance_correlation = 0.25
"""


def recipe(folder: Path, tables: str = TABLES) -> Recipe:
    return read_recipe(write_recipe(folder, MODEL, tables))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return bundle_files(recipe(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module")
def task(files: dict[str, bytes]) -> TaskDescription:
    return verify_bundle(files)


def test_blocks_are_described(task: TaskDescription):
    assert [block.point for block in task.split.blocks] == ["2", "4", "5", ""]
    assert [block.output_shape for block in task.split.blocks] == [[6], [5], [5], []]
    normalisation = 2 * 2 * 6  # mean and variance are sums over weighed rows
    assert [block.forward_flops for block in task.split.blocks] == [96 + normalisation, 60, 50, 30]
    assert all(block.working_bytes for block in task.split.blocks)
    blocks = {parameter.name: parameter.block for parameter in task.parameters}
    assert blocks["1.running_mean"] == blocks["0.weight"] == 0
    assert [blocks[f"{layer}.weight"] for layer in (3, 5, 6)] == [1, 2, 3]


def test_every_pair_of_points_is_a_cut(task: TaskDescription):
    cuts = {cut.name: cut.helper for cut in task.split.cuts}
    assert cuts == {"1-2": [(1, 2)], "1-3": [(1, 3)], "2-3": [(2, 3)]}


def test_normalisation_and_dropout_are_seen_to_depend_on_the_mini_batch(task: TaskDescription):
    assert [block.rows_are_alone for block in task.split.blocks] == [False, False, True, True]


def test_what_passes_is_as_the_recipe_says(task: TaskDescription):
    split = task.split
    assert (split.activations, split.gradients, split.distance_correlation) == ("float16", "int8", 0.25)


def test_the_same_recipe_gives_the_same_graphs(files: dict[str, bytes], task: TaskDescription, tmp_path: Path):
    again = recipe(tmp_path)
    models = block_models(divide(again, again.task.split.points))
    graphs = {name: admitted(name, model) for name, model in models}
    assert graphs.keys() == split_files(task)
    assert all(files[name] == graph for name, graph in graphs.items())


def test_split_without_points_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"points"):
        recipe(tmp_path, "[label]\nclasses = 3\n[split]\npoints = []\n")


def test_updates_of_one_version_are_one_mean_where_the_recipe_names_no_strategy(tmp_path: Path):
    folder = write_recipe(tmp_path, MODEL, TABLES)
    text = (folder / TASK_FILE).read_text()
    assert "[aggregation]\n" in text and "strategy" not in text
    assert read_recipe(folder).task.aggregation.strategy == "base_mean"
    (folder / TASK_FILE).write_text(text.replace("[aggregation]", '[aggregation]\nstrategy = "fedbuff"'))
    assert read_recipe(folder).task.aggregation.strategy == "fedbuff"
    whole = write_recipe(tmp_path, MODEL, "[label]\nclasses = 3\n")
    assert read_recipe(whole).task.aggregation.strategy == "fedbuff"
