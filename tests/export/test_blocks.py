"""A model in blocks trains as the whole model does, wherever each block runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge_agent.training.engine import BatchPlan
from tests.support.chained_blocks import ExportedTask, train_chained, train_whole
from tests.support.recipes import write_recipe
from tests.support.split_session import SESSION, DirectExchange, engine_of, middle_of, plan_of
from workbench.export.recipe.recipe import read_recipe
from workbench.export.trials.random_samples import random_samples

STEPS, ROWS, SAMPLES, SEED = 50, 8, 40, 11
TOLERANCE = 1e-5

PICTURES = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.2),
        nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4),
    )
"""
PICTURE = """
[input]
shape = [1, 8, 8]
minimum = -3.0
maximum = 3.0
"""
SEQUENCES = """
from torch import nn

class Layer(nn.Module):
    def __init__(self, inputs, outputs, dropout=0.0, layers=1):
        super().__init__()
        self.recurrence = nn.GRU(inputs, outputs, num_layers=layers, dropout=dropout, batch_first=True)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, sequence):
        outputs, _ = self.recurrence(sequence)
        return self.norm(outputs.transpose(1, 2)).transpose(1, 2)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Layer(3, 6)
        self.drop = nn.Dropout(0.3)
        self.second = Layer(6, 5, 0.3, 2)
        self.third = nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, sequence):
        return self.head(self.third(self.second(self.drop(self.first(sequence)))[:, -1]).tanh())

def build():
    return Model()
"""
SEQUENCE = """
[input]
shape = [7, 3]
minimum = -100.0
maximum = 100.0
"""
ADVERSARIES = """
import torch
from torch import nn
from torch.nn import functional

class Adversaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 5),
        )
        self.discriminator = nn.Sequential(
            nn.Linear(5, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3),
            nn.Linear(8, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2), nn.Linear(6, 1),
        )

    def forward(self, latent, real):
        made = self.generator(latent)
        return {"scores": made, "made": self.discriminator(made)[:, 0], "real": self.discriminator(real)[:, 0]}

def build():
    return Adversaries()

def loss_discriminator(outputs):
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])

def loss_generator(outputs):
    return functional.softplus(-outputs["made"])
"""
PAIR = """
[inputs.latent]
shape = [3]
minimum = -3.0
maximum = 3.0
[inputs.real]
shape = [5]
minimum = -3.0
maximum = 3.0
"""
PARTS = """
[label]
kind = "none"
[parts.discriminator]
parameters = ["discriminator.*"]
rate = 2.0
[parts.generator]
parameters = ["generator.*"]
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A recipe: its model, what goes in, its points, and the rest of `task.toml`."""

    code: str
    inputs: str
    points: tuple[str, ...]
    tables: str
    training: str
    cuts: str = ""


MODELS: Mapping[str, Model] = {
    "pictures": Model(
        PICTURES,
        PICTURE,
        ("2", "4", "7", "10"),
        "[label]\nclasses = 4\n",
        'optimiser = "momentum"\nweight_decay = 0.01\n',
    ),
    "sequences": Model(
        SEQUENCES,
        SEQUENCE,
        ("first", "second", "third"),
        '[label]\nkind = "regression"\nvalues = 2\n',
        'optimiser = "adam"\nproximal = 0.1\n',
    ),
    "adversaries": Model(
        ADVERSARIES,
        PAIR,
        ("generator.2", "generator", "discriminator.1", "discriminator.4"),
        PARTS,
        "validation_share = 0.0\n",
        """
        in_generator = [["generator.2", "generator"]]
        in_discriminator = [["discriminator.1", "discriminator.4"]]
        in_both = [["generator.2", "generator"], ["discriminator.1", "discriminator.4"]]
        """,
    ),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportedTask]:
    """Exports a model, once."""

    @cache
    def export(name: str) -> ExportedTask:
        return ExportedTask.of(read_recipe(recipe_of(MODELS[name], tmp_path_factory.mktemp(name))))

    return export


def recipe_of(model: Model, folder: Path) -> Path:
    split = f"[split]\npoints = {list(model.points)}\n" + (f"[split.cuts]\n{model.cuts}" if model.cuts else "")
    write_recipe(folder, model.code, model.tables + split, inputs=model.inputs)
    text = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text(text.replace("[update]", f"{model.training}[update]"))
    return folder


def mini_batches() -> BatchPlan:
    """The last of them half full."""
    mask = np.ones((STEPS, ROWS), np.float32)
    mask[-1, ROWS // 2 :] = 0
    return BatchPlan(np.random.default_rng(4).integers(0, SAMPLES, (STEPS, ROWS)), mask, SEED)


@pytest.mark.parametrize("name", MODELS)
def test_every_cut_trains_as_the_whole_model(name: str, exported: Callable[[str], ExportedTask]):
    model, plan = exported(name), mini_batches()
    samples = random_samples(model.task).take(slice(0, SAMPLES))
    expected, expected_losses = train_whole(model, samples, plan)
    assert np.abs(expected - model.weights).max() > 0.01
    for cut in (None, *model.task.split.cuts):
        trained, losses = train_chained(model, cut, samples, plan)
        np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE, err_msg=str(cut))
        np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE, err_msg=str(cut))


@pytest.mark.parametrize("name", MODELS)
def test_a_device_and_its_helper_train_every_cut_as_the_whole_model(name: str, exported: Callable[[str], ExportedTask]):
    model, plan = exported(name), mini_batches()
    samples = random_samples(model.task).take(slice(0, SAMPLES))
    expected, expected_losses = train_whole(model, samples, plan)
    exact = plan_of(model.task)
    for cut in exact.cuts:
        middle = middle_of(model, exact, model.weights)
        middle.open(SESSION, cut)
        engine = engine_of(model, exact, cut, DirectExchange(middle))
        trained, losses = engine.train(model.weights, samples, plan, model.rates)
        whole = trained + middle.take_contribution().delta
        np.testing.assert_allclose(whole, expected, rtol=0, atol=TOLERANCE, err_msg=str(cut))
        np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE, err_msg=str(cut))
