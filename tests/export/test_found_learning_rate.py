"""A task without a learning rate gets one at export, and is told which and from what."""

import re
from pathlib import Path

import numpy as np
import pytest

from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from workbench.export.bundle_writer import bundle_files, export_bundle
from workbench.export.recipe.recipe import read_recipe
from workbench.recipe_folder import find_recipe

DIGITS = find_recipe("digits")
MODEL = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, {}))\n"
TASK = """
task = "small"
title = "Four numbers"
[input]
shape = [4]
minimum = {minimum}
maximum = {maximum}
[label]
{label}
[training]
steps = 20
batch_size = 16
optimiser = "{optimiser}"
[update]
keep_fraction = 0.1
[aggregation]
buffer_size = 4
"""
REGRESSION = 'kind = "regression"\nvalues = 1'


def write_recipe(folder: Path, label=REGRESSION, outputs=1, optimiser="momentum", bounds=(-1.0, 1.0)) -> Path:
    folder.mkdir()
    (folder / "model.py").write_text(MODEL.format(outputs))
    task = TASK.format(label=label, optimiser=optimiser, minimum=bounds[0], maximum=bounds[1])
    (folder / "task.toml").write_text(task)
    return folder


def rate_of(recipe: Path, **options) -> float:
    text = bundle_files(read_recipe(recipe), tell=lambda _: None, **options)["task.json"]
    return parse_description(text).training.learning_rate


def test_momentum_gets_a_lower_rate_than_plain_descent_as_it_goes_further(tmp_path: Path):
    rates = {name: rate_of(write_recipe(tmp_path / name, optimiser=name)) for name in ("sgd", "momentum", "adam")}
    assert rates["momentum"] < rates["sgd"]
    assert 1e-3 < rates["adam"] < 0.13


def test_it_is_told_written_into_the_bundle_and_the_same_every_time(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", 'classes = 3\nkind = "class"', 3)
    told: list[str] = []
    description = export_bundle(recipe, tmp_path / "out", tell=told.append)
    (line,) = told
    found = re.match(r"learning rate (\S+), found on 512 random samples \(inputs from -1 to 1\): the loss falls", line)
    assert found
    assert float(found[1]) == pytest.approx(description.training.learning_rate, rel=1e-5)
    assert "write learning_rate in [training] of task.toml" in line
    assert export_bundle(recipe, tmp_path / "again", tell=told.append) == description


def test_a_rate_that_is_given_is_kept_without_a_word(tmp_path: Path):
    told: list[str] = []
    assert export_bundle(DIGITS, tmp_path, tell=told.append).training.learning_rate == 0.3
    assert told == []


def test_given_samples_decide_it(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe")
    inputs = np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype(np.float32)
    np.savez(tmp_path / "small.npz", inputs=0.1 * inputs, labels=inputs[:, :1])
    np.savez(tmp_path / "large.npz", inputs=inputs, labels=inputs[:, :1])
    small, large = (rate_of(recipe, data=tmp_path / f"{name}.npz") for name in ("small", "large"))
    assert large < small


def test_the_unit_of_a_table_whose_scale_the_fleet_finds_changes_nothing(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", bounds=(-1e6, 1e6))
    inputs = np.random.default_rng(0).uniform(-2, 2, (64, 4)).astype(np.float32)
    np.savez(tmp_path / "metres.npz", inputs=inputs, labels=inputs[:, :1])
    np.savez(tmp_path / "kilometres.npz", inputs=1024 * inputs, labels=1024 * inputs[:, :1])
    metres, kilometres = (rate_of(recipe, data=tmp_path / f"{name}.npz") for name in ("metres", "kilometres"))
    assert metres == kilometres > 1e-3


def test_samples_that_a_model_hardly_learns_from_are_told_and_so_are_narrow_inputs(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", "classes = 2", 2, optimiser="sgd")
    inputs = np.random.default_rng(0).uniform(0.5, 0.5001, (512, 4))
    np.savez(tmp_path / "narrow.npz", inputs=inputs, labels=np.arange(512) % 2)
    told: list[str] = []
    bundle_files(read_recipe(recipe), data=tmp_path / "narrow.npz", tell=told.append)
    _, narrow, hardly = told
    assert narrow.startswith("small: no input deviates by more than 2.9e-05, where the bounds let it reach 1: a model")
    assert hardly.startswith("the model hardly learns from these samples")


def test_samples_that_teach_nothing_are_named_with_the_remedy(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", label=f'{REGRESSION}\n[scaling]\ntargets = "off"')
    np.savez(tmp_path / "flat.npz", inputs=np.zeros((8, 4)), labels=np.full((8, 1), 1e30))
    with pytest.raises(
        ConfigurationError, match=r"small: on the 8 samples of .*flat\.npz, no learning rate .* write lea"
    ):
        rate_of(recipe, data=tmp_path / "flat.npz")


def test_a_bundle_without_a_rate_is_refused():
    text = (DIGITS / "bundle" / "task.json").read_bytes()
    for wrong in (b"0", b"0.0"):
        with pytest.raises(ConfigurationError, match=r"learning_rate is missing or 0; export the bundle again"):
            parse_description(re.sub(rb'"learning_rate": [0-9.]+', b'"learning_rate": ' + wrong, text))
