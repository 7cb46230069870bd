"""Several inputs, several heads and scores of positions train as torch trains them, from forward() to the figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bundle_runtime.log_priors import BALANCE
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from tests.support.recipes import write_recipe
from tests.support.training import TOLERANCE, Rates, initial_weights, samples, train_exported, train_with_torch
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe, read_recipe

MIXED = """
import torch
from torch import nn

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.picture = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 6))
        self.kind, self.readings = nn.Embedding(5, 4), nn.Linear(3, 6)
        self.digit, self.pose = nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, picture, readings, kind):
        known = self.kind(kind.long()[:, 0] - 1)
        hidden = torch.tanh(torch.cat([self.picture(picture), self.readings(readings), known], dim=1))
        return {"pose": self.pose(hidden), "digit": self.digit(hidden)}

def build():
    return Mixed()
"""
INPUTS = """
[inputs.kind]
shape = [1]
minimum = 1
maximum = 5
whole = true
[inputs.picture]
shape = [1, 4, 4]
minimum = -1.0
maximum = 1.0
[inputs.readings]
shape = [3]
minimum = -1.0
maximum = 1.0
"""
HEADS = """
[heads.digit]
label = { classes = 3 }
[heads.pose]
label = { kind = "regression", values = 2 }
loss = "huber"
weight = 0.25
"""
UNSCALED = '[scaling]\ntargets = "off"\n'
SEGMENTING = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1))
"""
PICTURE = "[input]\nshape = [1, 4, 5]\nminimum = -1.0\nmaximum = 1.0\n"
POSITIONS = '[label]\nkind = "{kind}"\n{size} = 3\nshape = [4, 5]\n'


def mixed(folder: Path, tables: str = UNSCALED, *, model: str = MIXED, first: str = "") -> Recipe:
    return read_recipe(write_recipe(folder, model, HEADS + tables, inputs=INPUTS, first=first))


def log_prior(labels: Tensor) -> Tensor:
    smoothed = torch.bincount(labels.flatten().long(), minlength=3) + 1.0
    return BALANCE * torch.log(smoothed / smoothed.sum())


def check(recipe: Recipe, loss) -> None:
    before = initial_weights(recipe)
    recipe.set_training(True)
    trained, losses = train_exported(recipe)
    expected, expected_losses = train_with_torch(recipe, loss, Rates(), torch.optim.SGD)
    assert np.abs(trained - before).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)


def test_three_inputs_and_two_heads_train_as_torch_does_on_the_weighted_sum_of_their_losses(tmp_path: Path):
    recipe = mixed(tmp_path)
    prior = log_prior(torch.from_numpy(samples(recipe)[1][:, 0]))

    def loss(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        digit = functional.cross_entropy(outputs["digit"] + prior, labels[:, 0].long())
        return digit + 0.25 * functional.huber_loss(outputs["pose"], labels[:, 1:])

    check(recipe, loss)


def test_per_sample_gradients_of_several_heads_add_up_to_those_of_the_batch(tmp_path: Path):
    recipe = mixed(tmp_path, UNSCALED.replace("[", "[", 1))
    folder_text = (tmp_path / "task.toml").read_text().replace("[update]", "gradient_clip = 1e6\n[update]")
    (tmp_path / "task.toml").write_text(folder_text)
    recipe = read_recipe(tmp_path)
    recipe.set_training(True)
    rates = Rates(gradient_clip=1e6)
    np.testing.assert_allclose(
        train_exported(recipe, rates)[0], train_exported(recipe, rates, per_sample=True)[0], rtol=0, atol=TOLERANCE
    )


def test_a_loss_in_model_py_is_told_several_inputs_and_labels_by_name(tmp_path: Path):
    written = """
def loss(outputs, labels, inputs):
    surprise = torch.nn.functional.cross_entropy(outputs["digit"], labels["digit"], reduction="none")
    missed = ((outputs["pose"] - labels["pose"]) ** 2).mean(dim=1)
    return surprise + missed * (inputs["kind"][:, 0] > 2)
"""
    recipe = read_recipe(
        write_recipe(
            tmp_path,
            MIXED + written,
            HEADS.replace('loss = "huber"\nweight = 0.25\n', "") + UNSCALED,
            inputs=INPUTS,
            first='loss = "model.py"',
        )
    )
    inputs, labels = map(torch.from_numpy, samples(recipe))

    def loss(outputs: dict[str, Tensor], both: Tensor) -> Tensor:
        surprise = functional.cross_entropy(outputs["digit"], both[:, 1].long(), reduction="none")
        missed = ((outputs["pose"] - both[:, 2:]) ** 2).mean(dim=1)
        return (surprise + missed * (both[:, 0] > 2)).mean()

    recipe.set_training(True)
    trained, _ = train_exported(recipe)
    both = torch.cat([inputs[:, :1], labels], dim=1)
    expected, _ = train_with_torch(recipe, loss, Rates(), torch.optim.SGD, labels=both)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


def test_every_head_has_its_scores_and_figures(tmp_path: Path):
    recipe = mixed(tmp_path)
    files = bundle_files(recipe)
    task = verify_bundle(files)
    weights = read_weights(files[WEIGHTS_FILE], task.parameters)
    inputs, labels = samples(recipe)
    outputs = {name: each.detach() for name, each in recipe.module.eval()(torch.from_numpy(inputs)).items()}
    runner = BundleRunner(task, files)
    for head, expected in outputs.items():
        np.testing.assert_allclose(runner.predict(weights, inputs, head), expected, atol=TOLERANCE)
    found = runner.evaluate(weights, Samples(inputs, labels))
    digits, poses = torch.from_numpy(labels[:, 0]).long(), torch.from_numpy(labels[:, 1:])
    surprise, missed = functional.cross_entropy(outputs["digit"], digits), functional.huber_loss(outputs["pose"], poses)
    assert found.loss == pytest.approx(float(surprise + 0.25 * missed), rel=1e-5)
    assert found.accuracy is None
    assert found.heads["digit"].loss == pytest.approx(float(surprise), rel=1e-5)
    assert found.heads["digit"].accuracy == pytest.approx(float((outputs["digit"].argmax(1) == digits).float().mean()))
    assert found.heads["pose"].loss == pytest.approx(float(missed), rel=1e-5)
    assert found.heads["pose"].accuracy is None


def test_scale_reaches_the_values_that_have_a_unit_and_no_others(tmp_path: Path):
    ranges = "[[0.0, 4.0], [100.0, 300.0], [-1.0, 1.0], [-1.0, 1.0]]"
    scaled = f'[scaling]\ninputs = "ranges"\ninput_ranges = {ranges}\ntargets = "ranges"\n'
    recipe = mixed(tmp_path, scaled + "target_ranges = [[0.0, 10.0], [-1.0, 1.0]]\n")
    files = bundle_files(recipe)
    task = verify_bundle(files)
    weights = read_weights(files[WEIGHTS_FILE], task.parameters)
    inputs, labels = samples(recipe)
    scaled_inputs = inputs.copy()
    scaled_inputs[:, 1:17] = (inputs[:, 1:17] - 2) / 2  # the picture has one column
    scaled_inputs[:, 17] = np.clip((inputs[:, 17] - 200) / 100, -10, 10)
    outputs = {name: each.detach() for name, each in recipe.module.eval()(torch.from_numpy(scaled_inputs)).items()}
    runner = BundleRunner(task, files)
    np.testing.assert_allclose(runner.predict(weights, inputs, "digit"), outputs["digit"], atol=TOLERANCE)
    pose = outputs["pose"].numpy() * [5, 1] + [5, 0]
    np.testing.assert_allclose(runner.predict(weights, inputs, "pose"), pose, atol=TOLERANCE)
    targets = torch.from_numpy((labels[:, 1:] - np.float32([5, 0])) / np.float32([5, 1]))
    found = runner.evaluate(weights, Samples(inputs, labels)).heads["pose"].loss
    assert found == pytest.approx(float(functional.huber_loss(outputs["pose"], targets)), rel=1e-5)


def test_class_of_every_pixel_trains_as_torch_does_with_the_balanced_loss(tmp_path: Path):
    tables = POSITIONS.format(kind="class", size="classes")
    recipe = read_recipe(write_recipe(tmp_path, SEGMENTING, tables, inputs=PICTURE))
    prior = log_prior(torch.from_numpy(samples(recipe)[1])).reshape(3, 1, 1)
    check(recipe, lambda outputs, row: functional.cross_entropy(outputs + prior, row.reshape(-1, 4, 5).long()))


@pytest.mark.parametrize(
    ("kind", "size", "loss"),
    [
        ("multi_label", "classes", functional.binary_cross_entropy_with_logits),
        ("regression", "values", functional.mse_loss),
    ],
)
def test_numbers_of_every_pixel_train_as_torch_does(kind: str, size: str, loss, tmp_path: Path):
    tables = POSITIONS.format(kind=kind, size=size) + UNSCALED * (kind == "regression")
    recipe = read_recipe(write_recipe(tmp_path, SEGMENTING, tables, inputs=PICTURE))
    check(recipe, lambda outputs, row: loss(outputs, row.reshape(-1, 3, 4, 5)))


def test_pixels_are_scored_by_the_share_that_is_right_and_predicted_in_their_unit(tmp_path: Path):
    tables = POSITIONS.format(kind="regression", size="values")
    scaled = '[scaling]\ntargets = "ranges"\ntarget_ranges = [[0.0, 2.0], [0.0, 4.0], [-1.0, 1.0]]\n'
    recipe = read_recipe(write_recipe(tmp_path, SEGMENTING, tables + scaled, inputs=PICTURE))
    files = bundle_files(recipe)
    task = verify_bundle(files)
    inputs = samples(recipe)[0]
    raw = recipe.module.eval()(torch.from_numpy(inputs)).detach().numpy()
    unit = np.float32([1, 2, 1]).reshape(3, 1, 1)
    found = BundleRunner(task, files).predict(read_weights(files[WEIGHTS_FILE], task.parameters), inputs)
    np.testing.assert_allclose(found, raw * unit + np.float32([1, 2, 0]).reshape(3, 1, 1), atol=TOLERANCE)
