"""A loss that is written in model.py trains as torch trains with it, and what can't be one is refused in words."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from tests.support.recipes import write_recipe
from tests.support.training import TOLERANCE, Rates, initial_weights, samples, train_exported, train_with_torch
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe, read_recipe

NETWORK = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
"""
PINBALL = """
QUANTILES = torch.tensor([0.1, 0.5, 0.9])

def loss(outputs, labels):
    missed = labels - outputs
    return torch.maximum(QUANTILES * missed, (QUANTILES - 1) * missed).mean(dim=1)
"""
CONTRASTIVE = """
def loss(outputs, inputs, real):
    points = torch.nn.functional.normalize(outputs, dim=1)
    others = torch.nn.functional.normalize(inputs[:, :3], dim=1)
    likeness = points @ others.T / 0.1 + torch.log(real)
    return torch.logsumexp(likeness, dim=1) - likeness.diagonal()
"""
AUTOENCODER = """
import torch
from torch import nn

class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(2, 8)

    def forward(self, inputs):
        mean, log_variance = self.encoder(inputs).chunk(2, dim=1)
        return self.decoder(mean), mean, log_variance

def build():
    return Autoencoder()

def loss(outputs, inputs):
    restored, mean, log_variance = outputs
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1)
    return ((restored - inputs) ** 2).mean(dim=1) + 0.1 * divergence
"""
OWN = 'loss = "model.py"'
REGRESSION = '[label]\nkind = "regression"\nvalues = 1\n'
UNSCALED = '[scaling]\ntargets = "off"\n'
NO_LABEL = '[label]\nkind = "none"\n'


def pinball(scores: Tensor, labels: Tensor) -> Tensor:
    quantiles, missed = torch.tensor([0.1, 0.5, 0.9]), labels - scores
    return torch.where(missed > 0, quantiles * missed, (quantiles - 1) * missed).mean()


def check(recipe: Recipe, loss) -> None:
    before = initial_weights(recipe)
    recipe.set_training(True)
    trained, losses = train_exported(recipe)
    expected, expected_losses = train_with_torch(recipe, loss, Rates(), torch.optim.SGD)
    assert np.abs(trained - before).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)


def test_pinball_loss_of_three_quantiles_of_one_number_trains_as_torch_does(tmp_path: Path):
    check(read_recipe(write_recipe(tmp_path, NETWORK + PINBALL, REGRESSION + UNSCALED, first=OWN)), pinball)


def test_contrastive_loss_sees_which_rows_are_padding(tmp_path: Path):
    recipe = read_recipe(write_recipe(tmp_path, NETWORK + CONTRASTIVE, NO_LABEL))
    inputs = torch.from_numpy(samples(recipe)[0])
    others = torch.nn.functional.normalize(inputs[:, :3], dim=1)

    def contrastive(outputs: Tensor, numbers: Tensor) -> Tensor:
        points = torch.nn.functional.normalize(outputs, dim=1)
        likeness = points @ others[numbers[:, 0]].T / 0.1
        return torch.nn.functional.cross_entropy(likeness, torch.arange(len(points)))

    rows = torch.arange(len(inputs)).unsqueeze(1)
    trained, losses = train_exported(recipe)
    expected, expected_losses = train_with_torch(recipe, contrastive, Rates(), torch.optim.SGD, labels=rows)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)


def test_outputs_that_only_the_loss_reads_train_and_are_not_predicted(tmp_path: Path):
    recipe = read_recipe(write_recipe(tmp_path, AUTOENCODER, '[label]\nkind = "reconstruction"\n', first=OWN))
    files = bundle_files(recipe)
    task = verify_bundle(files)
    weights = read_weights(files[WEIGHTS_FILE], task.parameters)
    inputs = samples(recipe)[0]
    runner = BundleRunner(task, files)
    restored, mean, log_variance = (each.detach() for each in recipe.module.eval()(torch.from_numpy(inputs)))
    np.testing.assert_allclose(runner.predict(weights, inputs), restored, atol=TOLERANCE)
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(dim=1)
    expected = ((restored - torch.from_numpy(inputs)) ** 2).mean(dim=1) + 0.1 * divergence
    found = runner.evaluate(weights, Samples(inputs, np.empty((len(inputs), 0), np.float32)))
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)
    assert found.accuracy is None


def test_gradients_of_single_rows_are_clipped_with_a_loss_of_its_own_too(tmp_path: Path):
    folder = write_recipe(tmp_path, NETWORK + PINBALL, REGRESSION + UNSCALED, first=OWN)
    text = (folder / "task.toml").read_text().replace("[update]", "gradient_clip = 1e6\n[update]")
    (folder / "task.toml").write_text(text)
    recipe = read_recipe(folder)
    recipe.set_training(True)
    rates = Rates(gradient_clip=1e6)
    together, alone = train_exported(recipe, rates), train_exported(recipe, rates, per_sample=True)
    np.testing.assert_allclose(together[0], alone[0], rtol=0, atol=TOLERANCE)


def test_predicted_quantiles_come_in_the_unit_of_the_targets(tmp_path: Path):
    scaled = '[scaling]\ntargets = "ranges"\ntarget_ranges = [[100.0, 300.0]]\n'
    recipe = read_recipe(write_recipe(tmp_path, NETWORK + PINBALL, REGRESSION + scaled, first=OWN))
    files = bundle_files(recipe)
    task = verify_bundle(files)
    inputs = samples(recipe)[0]
    found = BundleRunner(task, files).predict(read_weights(files[WEIGHTS_FILE], task.parameters), inputs)
    raw = recipe.module.eval()(torch.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(found, 200 + 100 * raw, rtol=1e-5)
