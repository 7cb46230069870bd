"""A generator of one's own as docs/recipes.md describes it: colours, no square, dropout, and no classes."""

import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.split_gans.drawing import load
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.drawing import Drawer
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
from workbench import cli
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.recipe import read_recipe

TASK = """
task = "tiles"
title = "Draws coloured tiles"

[inputs.tile]
shape = [3, 4, 6]
minimum = -1.0
maximum = 1.0

[label]
kind = "none"

[training]
steps = 2
batch_size = 4
learning_rate = 0.001
validation_share = 0.0

[parts.critic]
parameters = ["critic.*"]

[parts.painter]
parameters = ["painter.*"]

[drawing]
module = "painter"
latent = 5
picture = "tile"
"""
MODEL = """
import torch
from torch import nn
from torch.nn.functional import softplus


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 72), nn.Tanh(), nn.Unflatten(1, (3, 4, 6))
        self.painter = nn.Sequential(*layers)
        self.critic = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, tile):
        made = self.painter(torch.randn(tile.shape[0], 5))
        return {"scores": made, "made": self.critic(made)[:, 0], "real": self.critic(tile)[:, 0]}


def build():
    return Pair()


def loss_critic(outputs):
    return softplus(outputs["made"]) + softplus(-outputs["real"])


def loss_painter(outputs):
    return softplus(-outputs["made"])
"""


def write_recipe(folder: Path, task: str = TASK) -> Path:
    folder.mkdir()
    (folder / "task.toml").write_text(task)
    (folder / "model.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_recipe(tmp_path_factory.mktemp("recipe") / "tiles")
    export_bundle(folder, folder / "bundle", tell=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def bundle(recipe: Path) -> Bundle:
    return load_bundle(recipe / "bundle")


def test_pictures_without_classes_are_those_of_torch_without_dropout(recipe: Path, bundle: Bundle) -> None:
    weights = read_weights(bundle.weights, bundle.description.parameters)
    own = read_recipe(recipe)
    load(own, weights)
    own.module.eval()
    latent = np.random.default_rng([3, 0]).standard_normal((4, 5), np.float32)
    with torch.no_grad():
        expected = own.module.get_submodule("painter")(torch.from_numpy(latent))
    found = np.stack(list(Drawer(bundle, weights).draw(0, 4, seed=3)))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


def generate(monkeypatch: pytest.MonkeyPatch, recipe: Path, out: Path, *words: str) -> int:
    asked = ["--task", str(recipe), "--weights", str(recipe / "bundle" / "weights.safetensors"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["edgeflock", "generate", *asked, *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_they_are_drawn_as_class_0_and_no_other_can_be_asked_for(recipe: Path, tmp_path: Path, monkeypatch, capsys):
    assert generate(monkeypatch, recipe, tmp_path / "out", "--count", "2") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"000-00000.png", "000-00001.png", "grid.png"}
    assert struct.unpack(">II", (tmp_path / "out" / "000-00000.png").read_bytes()[16:24]) == (6, 4)
    assert generate(monkeypatch, recipe, tmp_path / "none", "--label", "1") == 2
    assert "ask for one of 0, as its pictures have none" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_a_painter_that_takes_no_classes_where_the_task_has_them_is_refused_in_words(tmp_path: Path) -> None:
    kind = "[inputs.kind]\nshape = [1]\nminimum = 0\nmaximum = 2\nwhole = true\n\n[label]"
    task = TASK.replace("[label]", kind).replace('picture = "tile"', 'picture = "tile"\nlabel = "kind"')
    folder = write_recipe(tmp_path / "tiles", task)
    model = folder / "model.py"
    model.write_text(model.read_text().replace("def forward(self, tile):", "def forward(self, tile, kind):"))
    with pytest.raises(ConfigurationError, match=r"it has to take latent f32\[2, 5\] and classes i64\[2\]"):
        read_recipe(folder)
