"""A small convolutional network that tells the classes of pictures apart: what drawn pictures are judged by."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional

from benchmarks.split_gans.scenario import CLASSES, Labelled, Pictures

EPOCHS, ROWS, RATE = 5, 64, 2e-3
AT_ONCE = 1000

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained network."""

    module: nn.Module

    def shares(self, pictures: Pictures) -> Table:
        """How likely each class is, f64[N, C]."""
        self.module.eval()
        with torch.no_grad():
            parts = [
                self.module(_images(pictures[start : start + AT_ONCE])) for start in range(0, len(pictures), AT_ONCE)
            ]
        return np.asarray(torch.cat(parts).double().softmax(dim=1).numpy())

    def save(self, path: Path) -> None:
        """Write its weights."""
        save_model(self.module, str(path))

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read what `save` wrote."""
        module = _network()
        load_model(module, str(path))
        return cls(module)


def trained_on(data: Labelled, seed: int) -> Classifier:
    """On pictures alone, for five epochs of Adam."""
    torch.manual_seed(seed)
    module = _network()
    optimiser = torch.optim.Adam(module.parameters(), RATE)
    images, classes = _images(data.pictures), torch.from_numpy(data.classes)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images), ROWS):
            rows = order[start : start + ROWS]
            optimiser.zero_grad()
            torch.autograd.backward(functional.cross_entropy(module(images[rows]), classes[rows]))
            optimiser.step()
    return Classifier(module)


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 49, CLASSES),
    )


def _images(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures).reshape(-1, 1, 28, 28)
