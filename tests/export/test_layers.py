"""Whatever layer a model is made of, 20 exported steps end where torch's own autograd ends."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.cases import cases
from tests.support.training import (
    TOLERANCE,
    Rates,
    build,
    check_training,
    initial_weights,
    make_recipe,
    train_exported,
    train_with_torch,
    with_head,
)
from workbench.export.layers.layer_context import LayerContext
from workbench.export.layers.random_words import MODULUS, random_words

IMAGE, SIGNAL, VECTOR, VOLUME = (2, 8, 8), (2, 16), (8,), (1, 6, 6, 6)


class Residual(nn.Module):
    """A residual block: what goes in is added to what comes out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layers(inputs)


class SqueezeExcite(nn.Module):
    """Channels scaled by what they hold on average: Hu et al. 2018, with MobileNetV3's activations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.gates(inputs)


class Tokens(nn.Module):
    """Numbers of any size as one of ten tokens."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.abs() * 4).clamp(max=9).to(torch.int64)


def between(*layers: nn.Module) -> nn.Module:
    """The layers between two linear ones."""
    return nn.Sequential(nn.Linear(8, 6), *layers, nn.Linear(6, 4))


def inverted_residual() -> nn.Module:
    """MobileNetV3's block (Howard et al. 2019): expand, depthwise, squeeze and excite, project."""
    return with_head(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        Residual(
            nn.Conv2d(4, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            SqueezeExcite(8),
            nn.Hardswish(),
            nn.Conv2d(8, 4, 1, bias=False),
            nn.BatchNorm2d(4),
        ),
    )


def keyword_spotting() -> nn.Module:
    """A depthwise-separable network for spectrograms: Zhang et al. 2017."""
    return nn.Sequential(
        nn.Conv2d(1, 6, (5, 3), stride=(2, 2), padding=(2, 1)),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over channels; its outputs lie in memory with the channels last."""

    def __init__(self) -> None:
        super().__init__(4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.movedim(1, -1)).movedim(-1, 1)


LAYERS = {
    "conv1d": (lambda: with_head(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 3, stride=2)), SIGNAL),
    "conv2d": (lambda: with_head(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2)), IMAGE),
    "conv2d_dilated": (lambda: with_head(nn.Conv2d(2, 4, 3, dilation=2), nn.Conv2d(4, 4, 2, dilation=2)), IMAGE),
    "conv2d_grouped": (
        lambda: with_head(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1, groups=4)),
        IMAGE,
    ),
    "conv_transpose1d": (
        lambda: with_head(nn.ConvTranspose1d(2, 4, 3, stride=2), nn.ConvTranspose1d(4, 4, 3, 2, 1, 1)),
        (2, 6),
    ),
    "conv_transpose2d": (
        lambda: with_head(nn.ConvTranspose2d(2, 4, 3, 2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2)),
        (2, 3, 3),
    ),
    "pool_of_what_lies_channels_last": (
        lambda: with_head(
            nn.Conv2d(2, 4, 3), ChannelNorm(), nn.Conv2d(4, 4, 1), ChannelNorm(), nn.AdaptiveAvgPool2d(1)
        ),
        IMAGE,
    ),
    "max_pool1d": (lambda: with_head(nn.Conv1d(2, 4, 3), nn.MaxPool1d(2)), SIGNAL),
    "max_pool2d": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, stride=2, padding=1)), IMAGE),
    "avg_pool1d": (lambda: with_head(nn.Conv1d(2, 4, 3), nn.AvgPool1d(2)), SIGNAL),
    "avg_pool2d": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.AvgPool2d(3, stride=2, padding=1)), IMAGE),
    "avg_pool2d_ceil": (
        lambda: with_head(nn.Conv2d(2, 4, 3), nn.AvgPool2d(4, 3, 1, ceil_mode=True, count_include_pad=False)),
        IMAGE,
    ),
    "avg_pool3d": (lambda: with_head(nn.Conv3d(1, 2, 1), nn.AvgPool3d((1, 2, 3), padding=(0, 1, 1))), VOLUME),
    "avg_pool3d_ceil": (
        lambda: with_head(nn.Conv3d(1, 2, 1), nn.AvgPool3d(4, 3, 1, ceil_mode=True, count_include_pad=False)),
        VOLUME,
    ),
    "avg_pool3d_divisor": (lambda: with_head(nn.Conv3d(1, 2, 1), nn.AvgPool3d(2, divisor_override=3)), VOLUME),
    "max_pool3d": (lambda: with_head(nn.Conv3d(1, 2, 1), nn.MaxPool3d((2, 3, 2), 2, (1, 1, 0))), VOLUME),
    "max_pool3d_of_equal_values": (
        lambda: with_head(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2, ceil_mode=True)),
        VOLUME,
    ),
    "local_response_norm": (lambda: with_head(nn.Conv2d(2, 6, 3), nn.LocalResponseNorm(3, alpha=0.5)), IMAGE),
    "adaptive_avg_pool1d": (lambda: with_head(nn.Conv1d(2, 4, 3), nn.AdaptiveAvgPool1d(3)), SIGNAL),
    "adaptive_avg_pool2d": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d((4, 3))), IMAGE),
    "global_avg_pool": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1)), IMAGE),
    "embedding": (lambda: with_head(Tokens(), nn.Embedding(10, 3)), VECTOR),
    "group_norm": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()), IMAGE),
    "instance_norm": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU()), IMAGE),
    "layer_norm": (lambda: between(nn.LayerNorm(6)), VECTOR),
    "batch_norm1d": (lambda: between(nn.BatchNorm1d(6), nn.Tanh()), VECTOR),
    "batch_norm2d": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU()), IMAGE),
    "dropout": (lambda: between(nn.Dropout(0.4), nn.Tanh()), VECTOR),
    "dropout1d": (lambda: with_head(nn.Conv1d(2, 8, 3), nn.Dropout1d(0.4), nn.Tanh()), SIGNAL),
    "dropout2d": (lambda: with_head(nn.Conv2d(2, 8, 3), nn.Dropout2d(0.4), nn.Tanh()), IMAGE),
    "relu_in_place": (lambda: between(nn.ReLU(inplace=True)), VECTOR),
    "relu6": (lambda: between(nn.ReLU6()), VECTOR),
    "leaky_relu": (lambda: between(nn.LeakyReLU(0.1)), VECTOR),
    "leaky_relu_that_rises_on_both_sides": (lambda: between(nn.LeakyReLU(-0.3)), VECTOR),
    "leaky_relu_steeper_below": (lambda: between(nn.LeakyReLU(1.5)), VECTOR),
    "gelu": (lambda: between(nn.GELU()), VECTOR),
    "gelu_tanh": (lambda: between(nn.GELU("tanh")), VECTOR),
    "silu": (lambda: between(nn.SiLU()), VECTOR),
    "hardswish": (lambda: between(nn.Hardswish()), VECTOR),
    "sigmoid": (lambda: between(nn.Sigmoid()), VECTOR),
    "tanh": (lambda: between(nn.Tanh()), VECTOR),
    "softmax": (lambda: between(nn.Softmax(dim=1)), VECTOR),
    "residual_block": (
        lambda: with_head(nn.Conv2d(2, 4, 3), Residual(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())),
        IMAGE,
    ),
    "inverted_residual": (inverted_residual, IMAGE),
    "keyword_spotting": (keyword_spotting, (1, 12, 10)),
}


SAME_OF_OTHERS = {"conv1d", "conv2d_dilated", "conv_transpose1d", "max_pool1d", "avg_pool1d", "adaptive_avg_pool1d"}
SAME_OF_OTHERS |= {"dropout1d", "relu6", "gelu_tanh", "silu", "hardswish", "sigmoid", "tanh", "softmax"}
SAME_OF_OTHERS |= {"residual_block", "inverted_residual", "keyword_spotting"}
"""On one axis what another does on two, functions of each value that `torch.onnx` translates, and layers together."""


@pytest.mark.parametrize("name", cases(LAYERS, long=SAME_OF_OTHERS))
def test_layer_trains_as_torch_does(name: str):
    check_training(*build(*LAYERS[name]))


def test_frozen_batch_norm_keeps_its_statistics_and_trains_the_rest():
    module, shape = build(*LAYERS["batch_norm2d"])
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(1, 2)
    recipe = make_recipe(module, shape, batch_norm="frozen")
    before = initial_weights(recipe)
    trained, _ = train_exported(recipe)
    expected, _ = train_with_torch(recipe, functional.cross_entropy, Rates(), torch.optim.SGD)
    np.testing.assert_array_equal(trained[-8:], before[-8:])
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


def test_masks_are_fair_and_different_everywhere():
    like = torch.zeros(64, 500)
    draws = [
        random_words(LayerContext(seed=torch.tensor(seed), draws=draw), like) >= MODULUS // 4
        for seed in (0, 1, 2**31)
        for draw in (0, 1)
    ]
    for kept in draws:
        share = kept.to(torch.float64)
        assert abs(share.mean() - 0.75) < 0.01
        assert abs(share.mean(dim=1) - 0.75).max() < 0.1
    for number, one in enumerate(draws):
        for other in draws[:number]:
            agreement = (one == other).to(torch.float64).mean()
            assert abs(agreement - (0.75**2 + 0.25**2)) < 0.02
