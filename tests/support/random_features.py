"""A recipe with a solved head that is small enough to export in a test: random features of 8x8 pixels, one layer."""

from pathlib import Path

import numpy as np

from fleet_protocol.task_description import TaskDescription
from workbench.export.bundle_writer import export_bundle

MODEL = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 24), nn.Tanh())
        self.head = {head}

    def forward(self, pixels):
        return self.head(self.features(4 * pixels - 2))

def build():
    return Model()
"""
LINEAR = "nn.Linear(24, 10)"
TASK = """
task = "digits"
title = "Handwritten digits by random features"
seed = 3
[input]
shape = [64]
minimum = 0.0
maximum = 1.0
[label]
classes = 10
[backbone]
module = "features"
[training]
steps = 5
batch_size = 4
learning_rate = 0.1
[aggregation]
buffer_size = 2
[solved_head]
{solved_head}
"""
EXACT = """
solver = "ridge"
precision = "float64"
longest_wait_seconds = 0.5
"""


def write_recipe(folder: Path, *, head: str = LINEAR, solved_head: str = EXACT, more: str = "") -> Path:
    """The recipe's folder; `more` stands at the end of task.toml."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL.format(head=head))
    (folder / "task.toml").write_text(TASK.format(solved_head=solved_head) + more)
    return folder


def export_random_features(folder: Path, **options: str) -> TaskDescription:
    """A bundle in `folder / "bundle"`, of the recipe in `folder / "recipe"`."""
    return export_bundle(write_recipe(folder / "recipe", **options), folder / "bundle", tell=lambda _: None)


def pictures(seed: int, count: int, classes: int = 3) -> list[dict[str, object]]:
    """Samples as an agent takes them, of `classes` classes from the seed's own on."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).uniform(0.2, 0.8, (10, 64))
    labels = (seed + np.arange(count) % classes) % 10
    inputs = (centres[labels] + generator.uniform(-0.2, 0.2, (count, 64))).clip(0, 1).astype(np.float32)
    return [
        {"task": "digits", "inputs": values.tolist(), "label": int(label)}
        for values, label in zip(inputs, labels, strict=True)
    ]
