"""A generator and a discriminator of linear layers for pictures of 12x12: a pair whose real rounds take a second.

No normalisation: what a block gives on a sample does not depend on the others of its mini-batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES, LATENT, EMBEDDED, WIDE, SIDE = 10, 4, 3, 32, 12


def layer() -> nn.Module:
    """A block in the middle."""
    return nn.Sequential(nn.Linear(WIDE, WIDE), nn.Tanh())


class First(nn.Module):
    """Values f32[N, V] and class i64[N] to f32[N, 32]."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, EMBEDDED)
        self.linear = nn.Linear(values + EMBEDDED, WIDE)

    def forward(self, values: Tensor, digit: Tensor) -> Tensor:
        """What the next block takes."""
        given: Tensor = self.linear(torch.cat([values, self.embedding(digit)], dim=1))
        return given.tanh()


class Generator(nn.Module):
    """Latent and class to pictures f32[N, 1, 12, 12]."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = First(LATENT)
        self.block2, self.block3 = layer(), layer()
        self.block4 = nn.Sequential(nn.Linear(WIDE, SIDE * SIDE), nn.Sigmoid(), nn.Unflatten(1, (1, SIDE, SIDE)))

    def forward(self, latent: Tensor, digit: Tensor) -> Tensor:
        """The pictures."""
        pictures: Tensor = self.block4(self.block3(self.block2(self.block1(latent, digit))))
        return pictures


class Discriminator(nn.Module):
    """Pictures and class to scores f32[N]."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = First(SIDE * SIDE)
        self.block2, self.block3 = layer(), layer()
        self.block4 = nn.Linear(WIDE, 1)

    def forward(self, picture: Tensor, digit: Tensor) -> Tensor:
        """The scores."""
        scores: Tensor = self.block4(self.block3(self.block2(self.block1(picture.flatten(1), digit))))
        return scores[:, 0]


class Pair(nn.Module):
    """Both, on real pictures f32[N, 1, 12, 12] and what is generated for the same classes f32[N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        self.discriminator = Discriminator()

    def forward(self, picture: Tensor, digit: Tensor) -> dict[str, Tensor]:
        """The generated pictures, and the scores of both kinds."""
        classes = digit[:, 0].long()
        made = self.generator(torch.randn(picture.shape[0], LATENT), classes)
        made_score = self.discriminator(made, classes)
        return {"scores": made, "made": made_score, "real": self.discriminator(picture, classes)}


def build() -> nn.Module:
    """The pair."""
    return Pair()


def loss_discriminator(outputs: dict[str, Tensor]) -> Tensor:
    """The logistic loss (Goodfellow et al. 2014, equation 1)."""
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])


def loss_generator(outputs: dict[str, Tensor]) -> Tensor:
    """The non-saturating loss (Goodfellow et al. 2014, section 3)."""
    return functional.softplus(-outputs["made"])
