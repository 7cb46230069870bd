"""Pictures and classes found by optimisation: what, put into the known blocks, gives what the helper has seen.

As Dosovitskiy & Brox 2016 ("Inverting visual representations") with known weights and no network; a small total
variation (Mahendran & Vedaldi 2015, section 3) chooses among pictures that give the same. It needs no pictures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.inversion.decoder import SIDE, step

STEPS, RATE = 300, 0.05
VARIATION = 1e-3


@dataclass(frozen=True, slots=True)
class Found:
    """Pictures f32[N, 1, 28, 28], and the classes i64[N] that go with them."""

    pictures: Tensor
    classes: Tensor


class DiscriminatorFront(nn.Module):
    """The first blocks of a discriminator with a version's weights, in training mode as in a device's step."""

    def __init__(self, discriminator: nn.Module, blocks: int) -> None:
        super().__init__()
        head = discriminator.get_submodule("block1")
        self.told = head.get_parameter("embedding.weight").detach()
        names = [f"block{number}" for number in range(2, blocks + 1)]
        further = [discriminator.get_submodule(name) for name in names]
        self.layers = nn.Sequential(head.get_submodule("layers"), *further).train()

    def forward(self, pictures: Tensor, shares: Tensor) -> Tensor:
        """Activations of pictures f32[N, 1, 28, 28], of which each class has a share, f32[N, C]."""
        told = (shares @ self.told).reshape(-1, 1, SIDE, SIDE)
        activations: Tensor = self.layers(torch.cat([2 * pictures - 1, told], dim=1))
        return activations


def invert(front: DiscriminatorFront, seen: Tensor, rows: int) -> Found:
    """What was seen, f32[N, C, S, S], mini-batches of `rows` one by one: normalisation mixes the rows of each."""
    found = [_invert_batch(front, batch) for batch in torch.split(seen, rows)]
    return Found(torch.cat([each.pictures for each in found]), torch.cat([each.classes for each in found]))


def _invert_batch(front: DiscriminatorFront, seen: Tensor) -> Found:
    pictures = torch.full((len(seen), 1, SIDE, SIDE), -1.0, requires_grad=True)
    classes = torch.zeros(len(seen), len(front.told), requires_grad=True)
    optimiser = torch.optim.Adam([pictures, classes], RATE)
    spread = seen.var()
    for _ in range(STEPS):
        shown = pictures.sigmoid()
        missed = ((front(shown, classes.softmax(dim=1)) - seen) ** 2).mean() / spread
        step(optimiser, missed + VARIATION * _variation(shown))
    return Found(pictures.sigmoid().detach(), classes.argmax(dim=1))


def _variation(pictures: Tensor) -> Tensor:
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean()
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean()
    return down + across
