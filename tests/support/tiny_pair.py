"""A generator and a discriminator of linear layers, with the blocks and names of models/mnist_gan: cheap to export."""

from pathlib import Path

from workbench.recipe_folder import find_recipe

MODEL = """
from typing import Final

import torch
from torch import nn
from torch.nn import functional

CLASSES: Final = 10
LATENT, EMBEDDED, WIDE = 4, 3, 6


def layer(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh())


class First(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, EMBEDDED)
        self.linear = nn.Linear(inputs + EMBEDDED, WIDE)

    def forward(self, values, digit):
        return self.linear(torch.cat([values, self.embedding(digit)], dim=1)).tanh()


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.block1 = First(LATENT)
        self.block2, self.block3, self.block4 = layer(WIDE, WIDE), layer(WIDE, WIDE), layer(WIDE, WIDE)
        self.block5 = nn.Sequential(nn.Linear(WIDE, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, latent, digit):
        return self.block5(self.block4(self.block3(self.block2(self.block1(latent, digit)))))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.block1 = First(784)
        self.block2, self.block3, self.block4 = layer(WIDE, WIDE), layer(WIDE, WIDE), layer(WIDE, WIDE)
        self.block5 = nn.Linear(WIDE, 1)

    def forward(self, picture, digit):
        first = self.block1(picture.flatten(1), digit)
        return self.block5(self.block4(self.block3(self.block2(first))))[:, 0]


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = Generator()
        self.discriminator = Discriminator()

    def forward(self, picture, digit):
        classes = digit[:, 0].long()
        made = self.generator(torch.randn(picture.shape[0], LATENT), classes)
        real = self.discriminator(picture, classes)
        return {"scores": made, "made": self.discriminator(made, classes), "real": real}


def build():
    return Pair()


def loss_discriminator(outputs):
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])


def loss_generator(outputs):
    return functional.softplus(-outputs["made"])
"""


def write_tiny_pair(folder: Path) -> Path:
    """Into `folder`: with the task of the shipped pair."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "task.toml").write_text(
        (find_recipe("mnist_gan") / "task.toml").read_text().replace("latent = 100", "latent = 4")
    )
    return folder
