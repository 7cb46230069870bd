"""A recipe with a backbone that is small enough to export in a test: a convolution on 8x8 pixels, and a head."""

from pathlib import Path

from fleet_protocol.task_description import TaskDescription
from workbench.export.bundle_writer import export_bundle

MODEL = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Dropout(0.5), nn.MaxPool2d(2), nn.Flatten(),
        )
        for norm in (self.features[1], self.features[4]):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
        self.head = nn.Sequential(nn.Linear(16, 12), nn.Dropout(0.2), nn.ReLU(), nn.Linear(12, 10))

    def forward(self, pixels):
        return self.head(self.features(pixels.reshape(-1, 1, 8, 8) * 2 - 1))

def build():
    return Model()
"""
TASK = """
task = "digits"
title = "Handwritten digits, features first"
seed = {seed}
loss = "cross_entropy"
{more}
[input]
shape = [64]
minimum = 0.0
maximum = 1.0
[label]
classes = 10
[training]
steps = 6
batch_size = 4
learning_rate = 0.1
[update]
keep_fraction = 1.0
[aggregation]
buffer_size = 1
[backbone]
{backbone}
"""
NAMED = 'module = "features"'
INT8 = NAMED + '\nquantise = "int8"'


def write_recipe(folder: Path, *, backbone: str = NAMED, model: str = MODEL, seed: int = 0, more: str = "") -> Path:
    """The recipe's folder. `more` are keys that stand before the tables."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(model)
    (folder / "task.toml").write_text(TASK.format(backbone=backbone, seed=seed, more=more))
    return folder


def export_backbone_bundle(folder: Path, **options: object) -> TaskDescription:
    """A bundle in `folder / "bundle"`, of the recipe in `folder / "recipe"`."""
    return export_bundle(write_recipe(folder / "recipe", **options), folder / "bundle")
