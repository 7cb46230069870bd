"""The operations that a split plan counts are those that a bundle's graphs run, of a pair in turn too."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from fleet_protocol.split_plan import backward_file, forward_file, last_file
from fleet_protocol.split_step_costs import BACKWARD_GRAPH
from fleet_protocol.task_description import TaskDescription
from tests.support.chained_blocks import ExportedTask
from tests.support.graph_operations import operations, operations_of_means
from tests.support.recipes import write_recipe
from workbench.export.blocks.block_costs import with_costs
from workbench.export.blocks.division import divide
from workbench.export.recipe.recipe import read_recipe
from workbench.export.trials.random_samples import random_samples
from workbench.recipe_folder import TASK_FILE, find_bundle

WIDE_PAIR = """
from torch import nn
from torch.nn import functional

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(40, 50), nn.BatchNorm1d(50), nn.ReLU(), nn.Linear(50, 60))
        self.discriminator = nn.Sequential(
            nn.Linear(60, 70), nn.ReLU(), nn.Linear(70, 80), nn.ReLU(), nn.Linear(80, 1)
        )

    def forward(self, latent, real):
        made = self.generator(latent)
        return {"scores": made, "made": self.discriminator(made)[:, 0], "real": self.discriminator(real)[:, 0]}

def build():
    return Pair()

def loss_discriminator(outputs):
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])

def loss_generator(outputs):
    return functional.softplus(-outputs["made"])
"""
INPUTS = """
[inputs.latent]
shape = [40]
minimum = -3.0
maximum = 3.0
[inputs.real]
shape = [60]
minimum = -3.0
maximum = 3.0
"""
TABLES = """
[label]
kind = "none"
[parts.discriminator]
parameters = ["discriminator.*"]
[parts.generator]
parameters = ["generator.*"]
[split]
points = ["generator.2", "generator", "discriminator.1", "discriminator.3"]
"""


def counted(task: TaskDescription, files: Mapping[str, bytes], names: list[str]) -> list[int]:
    rows = task.training.batch_size
    return [operations(onnx.load_from_string(files[name]), rows) for name in names]


def pair_with_costs(folder: Path) -> ExportedTask:
    write_recipe(folder, WIDE_PAIR, TABLES, inputs=INPUTS)
    settings = (folder / TASK_FILE).read_text()
    (folder / TASK_FILE).write_text(settings.replace("[update]", "validation_share = 0.0\n[update]"))
    recipe = read_recipe(folder)
    exported = ExportedTask.of(recipe)
    given: Samples = random_samples(exported.task)
    task = with_costs(exported.task, divide(recipe, recipe.task.split.points), exported.files, given)
    return ExportedTask(task, exported.files)


def check(task: TaskDescription, files: Mapping[str, bytes]) -> None:
    """Forward graphs to a hundredth, those of a backward pass from two thirds of what is counted (where no gradient by
    what it takes is wanted, or the forward pass need not run again: a linear layer's) to four thirds (where a
    convolution's gradient has a wider edge). Means over rows are counted as often backward as forward.
    """
    rows, blocks = task.training.batch_size, task.split.blocks[:-1]
    forward = [rows * block.forward_flops for block in blocks]
    numbers = range(len(blocks))
    assert counted(task, files, [forward_file(each) for each in numbers]) == pytest.approx(forward, rel=0.01)
    for each, once in zip(numbers, forward, strict=True):
        graph = onnx.load_from_string(files[backward_file(each)])
        found = operations(graph, rows) + operations_of_means(graph, rows)
        assert 0.66 < found / (BACKWARD_GRAPH * once) < 1.34


def check_pair(task: TaskDescription, files: Mapping[str, bytes]) -> None:
    check(task, files)
    last = len(task.split.blocks) - 1
    assert task.split.parts == ["discriminator", "generator"]
    assert counted(task, files, [last_file(last, "discriminator")]) > counted(
        task, files, [last_file(last, "generator")]
    ), "its weights are trained in its own part's turn alone"


@pytest.mark.long
def test_of_a_pair_of_linear_layers_that_trains_in_turn(tmp_path: Path):
    exported = pair_with_costs(tmp_path)
    check_pair(exported.task, exported.files)


def test_of_a_shipped_pair_that_trains_in_turn():
    bundle = load_bundle(find_bundle("mnist_gan"))
    check_pair(bundle.description, bundle.files)


def test_of_a_shipped_network():
    bundle = load_bundle(find_bundle("mnist_cnn"))
    check(bundle.description, {name: bundle.files[name] for name in bundle.description.files})
