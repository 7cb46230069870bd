"""A conditional generator of 28x28 pictures and its discriminator, of five blocks each, trained against each other.

The widths at `WIDTH` 1 are those of Tawfilis et al. 2025 (arXiv 2507.12979); the discriminator is told the class by
projection (Miyato & Koyama 2018).
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

WIDTH: Final = 1 / 8
"""Times the published number of channels."""
LOSS: Final = "non_saturating"
"""Or "hinge"."""
NORM: Final = "group"
"""Of the generator: each picture by itself, so that a version draws as devices did while they trained. Or "batch", as
published, which draws with running means and variances, and those of a fleet lag behind its weights."""
GROUP: Final = 8
"""Channels that are normalised together, at most."""
SPECTRAL_NORM: Final = False
"""In place of batch normalisation in the discriminator, whose weights it limits: Miyato et al. 2018."""
CLASSES: Final = 10
LATENT, EMBEDDED, SIDE = 100, 10, 7


def channels(published: int) -> int:
    """How many channels a layer has."""
    return max(1, round(published * WIDTH))


class GeneratorHead(nn.Module):
    """Latent f32[N, 100] and class i64[N] to f32[N, C, 7, 7]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, EMBEDDED)
        self.linear = nn.Linear(LATENT + EMBEDDED, channels(256) * SIDE * SIDE, bias=False)
        self.shape = nn.Unflatten(1, (channels(256), SIDE, SIDE))
        self.norm = _normalised(channels(256))

    def forward(self, latent: Tensor, digit: Tensor) -> Tensor:
        """What the first transposed convolution takes."""
        given = torch.cat([latent, self.embedding(digit)], dim=1)
        return functional.relu(self.norm(self.shape(self.linear(given))))


class Generator(nn.Module):
    """Latent and class to pictures f32[N, 1, 28, 28] of brightness 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = GeneratorHead()
        self.block2 = _wider(256, 128, 4, 2)
        self.block3 = _wider(128, 128, 3, 1)
        self.block4 = _wider(128, 64, 4, 2)
        self.block5 = nn.Sequential(nn.ConvTranspose2d(channels(64), 1, 3, 1, 1), nn.Sigmoid())

    def forward(self, latent: Tensor, digit: Tensor) -> Tensor:
        """The pictures."""
        return self.block5(self.block4(self.block3(self.block2(self.block1(latent, digit)))))


class DiscriminatorHead(nn.Module):
    """Pictures f32[N, 1, 28, 28] and class i64[N] to f32[N, C, 14, 14]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 28 * 28)
        self.layers = _narrower(2, channels(64), 4, 2)

    def forward(self, picture: Tensor, digit: Tensor) -> Tensor:
        """The class is a second channel."""
        told = self.embedding(digit).reshape(-1, 1, 28, 28)
        return self.layers(torch.cat([2 * picture - 1, told], dim=1))


class Projection(nn.Module):
    """Features f32[N, C, 3, 3] and class i64[N] to scores f32[N]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(channels(256) * 9, 1)
        self.embedding = nn.Embedding(CLASSES, channels(256) * 9)

    def forward(self, features: Tensor, digit: Tensor) -> Tensor:
        """Above 0 where the picture is taken for a real one of its class."""
        flat = features.flatten(1)
        return self.linear(flat)[:, 0] + (self.embedding(digit) * flat).mean(dim=1)


class Discriminator(nn.Module):
    """Pictures and class to scores f32[N]."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = DiscriminatorHead()
        self.block2 = _narrower(channels(64), channels(128), 4, 2)
        self.block3 = _narrower(channels(128), channels(128), 3, 1)
        self.block4 = _narrower(channels(128), channels(256), 4, 2)
        self.block5 = Projection()

    def forward(self, picture: Tensor, digit: Tensor) -> Tensor:
        """The scores."""
        return self.block5(self.block4(self.block3(self.block2(self.block1(picture, digit)))), digit)


class Pair(nn.Module):
    """Both, on real pictures f32[N, 1, 28, 28] and what is generated for the same classes f32[N, 1]."""

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
    """The logistic loss (Goodfellow et al. 2014, equation 1), or the hinge loss (Lim & Ye 2017)."""
    if LOSS == "hinge":
        return functional.relu(1 + outputs["made"]) + functional.relu(1 - outputs["real"])
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])


def loss_generator(outputs: dict[str, Tensor]) -> Tensor:
    """The non-saturating loss (Goodfellow et al. 2014, section 3), or the one that goes with the hinge loss."""
    return -outputs["made"] if LOSS == "hinge" else functional.softplus(-outputs["made"])


def _wider(published_in: int, published_out: int, kernel: int, stride: int) -> nn.Sequential:
    inputs, outputs = channels(published_in), channels(published_out)
    layer = nn.ConvTranspose2d(inputs, outputs, kernel, stride, 1, bias=False)  # normalisation would take a bias away
    return nn.Sequential(layer, _normalised(outputs), nn.ReLU())


def _normalised(outputs: int) -> nn.Module:
    return nn.BatchNorm2d(outputs) if NORM == "batch" else nn.GroupNorm(max(1, outputs // GROUP), outputs)


def _narrower(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=SPECTRAL_NORM)
    normalised = [spectral_norm(layer)] if SPECTRAL_NORM else [layer, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*normalised, nn.LeakyReLU(0.2))
