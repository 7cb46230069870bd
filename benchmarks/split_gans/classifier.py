"""A small convolutional network that tells the classes of pictures apart: what drawn pictures are judged by."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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


def trained_on(data: Labelled, seed: int) -> Classifier:
    """On pictures alone, for five epochs of Adam."""
    torch.manual_seed(seed)
    module = nn.Sequential(
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


def _images(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(pictures).reshape(-1, 1, 28, 28)
