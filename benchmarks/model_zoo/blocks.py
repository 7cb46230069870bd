"""Parts that several models of the zoo are made of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class Residual(nn.Module):
    """The inputs, added to what a module makes of them; `shortcut` fits their shape."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, ...] to f32[B, ...]."""
        outputs: Tensor = self.body(inputs) + self.shortcut(inputs)
        return outputs


class Applied(nn.Module):
    """A function of tensors as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        """Whatever the function makes of the inputs."""
        return self.function(inputs)


class SqueezeExcite(nn.Module):
    """Channels weighed by what is in them: Hu et al. 2018."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, C, H, W] to the same."""
        pooled = functional.adaptive_avg_pool2d(inputs, 1)
        return inputs * functional.hardsigmoid(self.up(functional.relu(self.down(pooled))))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of f32[B, C, ...]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, C, ...] to the same."""
        normalised: Tensor = self.norm(inputs.movedim(1, -1)).movedim(-1, 1)
        return normalised


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, divided by the stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def normed(layer: nn.Conv2d, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """The convolution, batch normalisation, activation."""
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), activation())


def pooled_head(channels: int) -> list[nn.Module]:
    """The mean over all places of f32[B, C, H, W], and scores."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def last_step(outputs: Tensor) -> Tensor:
    """f32[B, T, F] to f32[B, F]."""
    return outputs[:, -1]


def mean_step(outputs: Tensor) -> Tensor:
    """f32[B, T, F] to f32[B, F]."""
    return outputs.mean(dim=1)


def channels_first(inputs: Tensor) -> Tensor:
    """f32[B, T, F] to f32[B, F, T]."""
    return inputs.transpose(1, 2)


def token_ids(inputs: Tensor) -> Tensor:
    """Whole numbers as f32 to i64."""
    return inputs.to(torch.int64)
