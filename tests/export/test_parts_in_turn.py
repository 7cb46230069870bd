"""A generator and a discriminator train in turn, each by its own loss, as two optimisers of torch train them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from tests.support.recipes import write_recipe
from tests.support.training import TOLERANCE, Rates, batches, initial_weights, samples, train_exported
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe, read_recipe
from workbench.recipe_folder import TASK_FILE

ADVERSARIAL = """
import torch
from torch import nn
from torch.nn import functional

class Adversaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5))
        self.discriminator = nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1))
        self.offset = nn.Parameter(torch.zeros(5))

    def forward(self, latent, real):
        made = self.generator(latent) + self.offset
        return {
            "scores": made,
            "made": self.discriminator(made)[:, 0],
            "real": self.discriminator(real)[:, 0],
        }

def build():
    return Adversaries()

def loss_discriminator(outputs):
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])

def loss_generator(outputs):
    return functional.softplus(-outputs["made"])
"""
INPUTS = """
[inputs.latent]
shape = [3]
minimum = -1.0
maximum = 1.0
[inputs.real]
shape = [5]
minimum = -1.0
maximum = 1.0
"""
PARTS = """
[parts.discriminator]
parameters = ["discriminator.*"]
rate = 2.0
[parts.generator]
parameters = ["generator.*", "offset"]
"""
NO_LABEL = '[label]\nkind = "none"\n'


def adversaries(folder: Path, *, optimiser: str = "sgd", parts: str = PARTS, more: str = "") -> Recipe:
    write_recipe(folder, ADVERSARIAL, NO_LABEL + parts, inputs=INPUTS)
    text = (folder / "task.toml").read_text()
    settings = f'optimiser = "{optimiser}"\nvalidation_share = 0.0\n{more}'
    (folder / "task.toml").write_text(text.replace("[update]", settings + "[update]"))
    recipe = read_recipe(folder)
    recipe.set_training(True)
    return recipe


def trained_by_torch(recipe: Recipe, make: type[torch.optim.Optimizer], **settings: float) -> tuple[np.ndarray, list]:
    """The usual loop: the discriminator first, then the generator against the new one."""
    module, inputs = recipe.module, torch.from_numpy(samples(recipe)[0])
    discriminator = make(module.discriminator.parameters(), lr=0.1, **settings)
    generator = make([*module.generator.parameters(), module.offset], lr=0.05, **settings)
    losses = []
    for row, real in zip(*batches(), strict=True):
        chosen = inputs[torch.from_numpy(row[real > 0])]
        outputs = module(chosen)
        against = (functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])).mean()
        discriminator.zero_grad()
        against.backward()
        discriminator.step()
        generator.zero_grad()
        towards: Tensor = functional.softplus(-module(chosen)["made"]).mean()
        towards.backward()
        generator.step()
        losses.append(float(against + towards))
    return initial_weights(recipe), losses


@pytest.mark.parametrize(
    ("name", "make", "settings"),
    [("sgd", torch.optim.SGD, {}), ("momentum", torch.optim.SGD, {"momentum": 0.9}), ("adam", torch.optim.Adam, {})],
)
def test_parts_train_in_turn_as_two_optimisers_do(name: str, make, settings: dict[str, float], tmp_path: Path):
    recipe = adversaries(tmp_path, optimiser=name)
    before = initial_weights(recipe)
    trained, losses = train_exported(recipe)
    expected, expected_losses = trained_by_torch(recipe, make, **settings)
    assert np.abs(trained - before).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)


def test_each_part_is_pulled_to_its_own_start(tmp_path: Path):
    recipe = adversaries(tmp_path, more="proximal = 100.0\n")
    before = initial_weights(recipe)
    free = train_exported(adversaries(tmp_path / "free"))[0]
    held = train_exported(recipe, Rates(learning_rate=0.005, proximal=100.0))[0]
    assert np.abs(held - before).max() < 0.1 * np.abs(free - before).max()


def test_what_was_generated_is_predicted_and_the_losses_of_all_parts_are_told(tmp_path: Path):
    recipe = adversaries(tmp_path)
    files = bundle_files(recipe)
    task = verify_bundle(files)
    weights = read_weights(files[WEIGHTS_FILE], task.parameters)
    inputs = samples(recipe)[0]
    outputs = {name: each.detach() for name, each in recipe.module.eval()(torch.from_numpy(inputs)).items()}
    runner = BundleRunner(task, files)
    np.testing.assert_allclose(runner.predict(weights, inputs), outputs["scores"], atol=TOLERANCE)
    made, real = outputs["made"], outputs["real"]
    both = functional.softplus(made) + functional.softplus(-real) + functional.softplus(-made)
    found = runner.evaluate(weights, Samples(inputs, np.empty((len(inputs), 0), np.float32)))
    np.testing.assert_allclose(found.losses, both, rtol=1e-5)


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ("", 0.5),
        ("server_learning_rate = 1.0", 1.0),
        ('strategy = "base_mean"', 0.5),
        ('strategy = "fedavg"\nround_seconds = 60\nmax_staleness = 0', 1.0),
    ],
)
def test_a_version_moves_parts_half_way_unless_the_recipe_says_otherwise_or_it_is_of_everybody(
    said: str, rate: float, tmp_path: Path
):
    adversaries(tmp_path)
    path = tmp_path / TASK_FILE
    path.write_text(path.read_text().replace("[aggregation]", f"[aggregation]\n{said}"))
    assert read_recipe(tmp_path).task.aggregation.server_learning_rate == rate
