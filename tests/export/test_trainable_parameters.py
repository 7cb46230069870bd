"""Patterns in task.toml say which parameters train; the rest is a constant of the graphs and travels nowhere."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load
from torch import nn
from torch.nn import functional

from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.errors import ConfigurationError
from tests.support.training import (
    TOLERANCE,
    Rates,
    build,
    export,
    initial_weights,
    make_recipe,
    run_training,
    train_exported,
    train_with_torch,
)
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe, read_recipe

IMAGE = (2, 8, 8)
PLAIN = Rates()
TASK = """
task = "frozen"
title = "Frozen"
trainable = {trainable}
{more}
[input]
shape = [8]
minimum = 0.0
maximum = 1.0
[label]
classes = 3
[training]
steps = 2
batch_size = 4
learning_rate = 0.1
[update]
keep_fraction = 1.0
[aggregation]
buffer_size = 1
"""
MODEL = """
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.head(self.features(inputs))

def build():
    return Model()
"""


def network() -> nn.Module:
    """Two convolutions with batch normalisation, whose running statistics aren't those of a new layer, and a head."""
    layers = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4)),
    )
    for norm in (layers[0][1], layers[1][1]):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2)
    return layers


def recipe_training(*patterns: str, optimiser: str = "sgd", rates: Rates = PLAIN) -> Recipe:
    module, shape = build(network, IMAGE)
    recipe = make_recipe(module, shape, optimiser=optimiser, rates=rates)
    recipe = replace(recipe, task=msgspec.structs.replace(recipe.task, trainable=patterns))
    recipe.set_training(True)
    return recipe


def freeze_by_torch(recipe: Recipe, training: set[str]) -> None:
    """What a person would write: no gradient for the others, and frozen normalisation in evaluation mode."""
    for name, parameter in recipe.module.named_parameters():
        parameter.requires_grad_(name in training)
    recipe.module.train()
    for name, part in recipe.module.named_modules():
        if isinstance(part, nn.BatchNorm2d) and f"{name}.weight" not in training:
            part.eval()


CASES = {
    "head": (["2.*"], {"2.1.weight", "2.1.bias"}, 0),
    "biases": (["*.bias"], {"0.0.bias", "0.1.bias", "1.0.bias", "1.1.bias", "2.1.bias"}, 0),
    "from the second block": (
        ["[12].*"],
        {"1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias", "2.1.weight", "2.1.bias"},
        2,
    ),
    "first block alone": (["0.*"], {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"}, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_named_parameters_train_as_in_torch_and_nothing_else_does(name: str):
    patterns, training, statistics = CASES[name]
    recipe = recipe_training(*patterns)
    assert {parameter.name for parameter in recipe.parameters if parameter.trainable} == training
    assert sum(not parameter.trainable for parameter in recipe.parameters) == statistics
    before = initial_weights(recipe)
    trained, losses = train_exported(recipe)
    freeze_by_torch(recipe, training)
    frozen = {
        key: value.clone()
        for key, value in recipe.module.state_dict().items()
        if key not in recipe.tensors and not key.endswith("num_batches_tracked")
    }
    expected, expected_losses = train_with_torch(recipe, functional.cross_entropy, PLAIN, torch.optim.SGD)
    assert np.abs(trained - before).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)
    for key, value in frozen.items():
        torch.testing.assert_close(recipe.module.state_dict()[key], value, rtol=0, atol=0, msg=f"torch moved {key}")


def test_optimiser_with_decay_and_proximal_term_touches_named_parameters_alone():
    rates = Rates(learning_rate=0.05, weight_decay=0.1, gradient_clip=0.5, proximal=0.3)
    recipe = recipe_training("2.*", optimiser="adamw", rates=rates)
    trained, _ = train_exported(recipe, rates)
    freeze_by_torch(recipe, {"2.1.weight", "2.1.bias"})
    expected, _ = train_with_torch(recipe, functional.cross_entropy, rates, torch.optim.AdamW)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


def test_frozen_parameters_appear_nowhere_but_in_the_graphs(tmp_path: Path):
    files = bundle_files(read_recipe(write_recipe(tmp_path, '["head.*"]')))
    description = verify_bundle(files)
    assert [parameter.name for parameter in description.parameters] == ["head.weight", "head.bias"]
    assert set(load(files[WEIGHTS_FILE])) == {"head.weight", "head.bias"}
    assert description.parameter_count == 6 * 3 + 3


def test_per_sample_gradients_leave_frozen_parameters_alone():
    clip = Rates(learning_rate=1.0, gradient_clip=0.05)
    module, shape = build(lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)), (8,))
    recipe = make_recipe(module, shape, rates=clip)
    recipe = replace(recipe, task=msgspec.structs.replace(recipe.task, trainable=("2.*",)))
    before = initial_weights(recipe)
    one = np.array([[3] + [0] * 7]), np.array([[1] + [0] * 7], np.float32)
    trained, _ = run_training(export(recipe, per_sample=True), recipe, clip, *one)
    assert before.size == 6 * 4 + 4
    np.testing.assert_allclose(np.linalg.norm(trained - before), 0.05, rtol=TOLERANCE)


def write_recipe(folder: Path, trainable: str, more: str = "") -> Path:
    (folder / "model.py").write_text(MODEL)
    (folder / "task.toml").write_text(TASK.format(trainable=trainable, more=more))
    return folder


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ('["heads.*"]', r"trainable: the pattern 'heads\.\*' fits no parameter; the nearest are 'head\.(bias|weight)'"),
        ('["head.*", "feature.0.weight"]', r"'feature\.0\.weight' fits no parameter; the nearest are 'features\.0"),
        ('["*.running_mean"]', r"\['\*\.running_mean'\] leaves no parameter to train; the nearest are '"),
        ("[]", r"trainable = \[\] leaves no parameter to train; the nearest are '"),
    ],
)
def test_pattern_that_leads_nowhere_is_named_with_the_nearest_parameters(tmp_path: Path, trainable: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        read_recipe(write_recipe(tmp_path, trainable))
