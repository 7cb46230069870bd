"""Layers that change buffers, share parameters, pad by repeating, or have no operator in ONNX train as torch's do."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.export.refused_models import Apply, Make, behind, between
from tests.export.test_layers import IMAGE, SIGNAL, VECTOR, Tokens
from tests.support.cases import cases
from tests.support.training import (
    TOLERANCE,
    Rates,
    batches,
    build,
    check_training,
    export,
    initial_weights,
    make_recipe,
    run_training,
)
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext


class TiedLanguageModel(nn.Module):
    """An embedding whose weight is the head's too: Press & Wolf 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens()
        self.embed = nn.Embedding(10, 6)
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embed.weight
        self.out = nn.Linear(10, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.head(torch.tanh(self.inner(self.embed(self.tokens(inputs)).mean(1)))))


class RunTwice(nn.Module):
    """One normalisation on two things in turn: its statistics move twice a step."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(torch.tanh(self.norm(inputs)) + inputs)


def convolution(**options: object) -> nn.Module:
    return nn.Conv2d(2, 4, 3, padding=1, **options)


def pooled(*layers: Make) -> Make:
    return behind(lambda: nn.Conv2d(2, 4, 3), *layers)


def pooled_signal(*layers: Make) -> Make:
    return behind(lambda: nn.Conv1d(2, 4, 3), *layers)


def between_and_head(function: Callable[..., Tensor], **parts: Callable[[], Tensor]) -> Make:
    return behind(lambda: nn.Linear(8, 6), lambda: Apply(function, **{name: make() for name, make in parts.items()}))


def bag(**options: object) -> Make:
    return behind(Tokens, lambda: nn.EmbeddingBag(10, 3, **options))


def shifted_in_time(inputs: Tensor) -> Tensor:
    """A part of the channels from the step before, a part from the step behind: Lin et al. 2019."""
    shifted = torch.zeros_like(inputs)
    shifted[:, :1, :-1] = inputs[:, :1, 1:]
    shifted[:, 1:2, 1:] = inputs[:, 1:2, :-1]
    shifted[:, 2:] = inputs[:, 2:]
    shifted[:, 3, ::3] += shifted[:, 2, ::3] * 2
    return shifted


def every_other(inputs: Tensor) -> Tensor:
    joined = inputs.new_zeros(inputs.shape[0], 12)
    joined[:, 0::2] = inputs
    joined[:, 1::2] = inputs * inputs
    joined[:, 3:5].mul_(3)
    return joined


def patched_weight(part: nn.Module, inputs: Tensor) -> Tensor:
    weight = part.weight.clone()
    weight[0] = 0
    weight[:, 3] = weight[:, 2]
    return inputs @ weight


def pairs_of(inputs: Tensor) -> Tensor:
    """The products of pairs of features: Naumov et al. 2019."""
    rows, columns = torch.triu_indices(6, 6, 1)
    return (inputs.unsqueeze(-1) * inputs.unsqueeze(1))[:, rows, columns]


LAYERS = {
    "written_steps": (pooled_signal(lambda: Apply(lambda _, x: shifted_in_time(x))), SIGNAL),
    "written_every_other": (between_and_head(lambda _, x: every_other(x)), VECTOR),
    "written_weight": (between_and_head(patched_weight, weight=lambda: torch.randn(6, 6) / 2), VECTOR),
    "triangle_of_pairs": (between_and_head(lambda _, x: pairs_of(x)), VECTOR),
    "taken_in_order": (between(lambda _, x: torch.take_along_dim(x, x.argsort(1), 1)), VECTOR),
    "taken_places": (between(lambda _, x: x.take_along_dim(torch.tensor([[3, 0, 0, 1, 5, 2]]), dim=-1)), VECTOR),
    "bilinear": (between(lambda part, x: part.layer(x, x.tanh()), layer=lambda: nn.Bilinear(6, 6, 6)), VECTOR),
    "channels_last": (behind(lambda: nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)), IMAGE),
    "tied": (TiedLanguageModel, VECTOR),
    "replicate": (behind(lambda: convolution(padding_mode="replicate"), nn.ReLU), IMAGE),
    "reflect": (behind(lambda: convolution(padding_mode="reflect"), nn.ReLU), IMAGE),
    "circular": (behind(lambda: convolution(padding_mode="circular"), nn.ReLU), IMAGE),
    "replicate_1d": (pooled_signal(lambda: nn.ReplicationPad1d((2, 1)), lambda: nn.Conv1d(4, 4, 3, 2)), SIGNAL),
    "reflect_1d": (pooled_signal(lambda: nn.ReflectionPad1d((0, 3)), lambda: nn.Conv1d(4, 4, 3, 2)), SIGNAL),
    "adaptive_max_even": (pooled(lambda: nn.AdaptiveMaxPool2d(2)), IMAGE),
    "adaptive_max_uneven": (pooled(lambda: nn.AdaptiveMaxPool2d((4, 5))), IMAGE),
    "adaptive_max_1d": (pooled_signal(lambda: nn.AdaptiveMaxPool1d(3)), SIGNAL),
    "instance_norm_tracked": (
        pooled(lambda: nn.InstanceNorm2d(4, momentum=0.3, affine=True, track_running_stats=True)),
        IMAGE,
    ),
    "batch_norm_twice": (between(lambda part, x: part.layer(x), layer=lambda: RunTwice(nn.BatchNorm1d(6))), VECTOR),
    "spectral_norm": (
        between(lambda part, x: part.layer(x), layer=lambda: parametrizations.spectral_norm(nn.Linear(6, 6))),
        VECTOR,
    ),
    "spectral_norm_twice": (
        between(lambda part, x: part.layer(x), layer=lambda: RunTwice(parametrizations.spectral_norm(nn.Linear(6, 6)))),
        VECTOR,
    ),
    "spectral_norm_convolution": (
        behind(lambda: parametrizations.spectral_norm(nn.Conv2d(2, 4, 3), n_power_iterations=2)),
        IMAGE,
    ),
    "spectral_norm_by_hook": (
        between(lambda part, x: part.layer(x), layer=lambda: nn.utils.spectral_norm(nn.Linear(6, 6))),
        VECTOR,
    ),
    "weight_norm": (
        between(lambda part, x: part.layer(x), layer=lambda: parametrizations.weight_norm(nn.Linear(6, 6))),
        VECTOR,
    ),
    "cumsum": (between(lambda _, x: x.cumsum(1)), VECTOR),
    "deviation": (between(lambda _, x: x / (x.std(1, keepdim=True) + x.var(1, keepdim=True))), VECTOR),
    "threshold": (between(lambda _, x: functional.threshold(x, 0.1, 0.2)), VECTOR),
    "windows": (pooled_signal(lambda: Apply(lambda _, x: x.unfold(-1, 4, 3) ** 2)), SIGNAL),
    "upsample_bilinear": (pooled(lambda: nn.Upsample(scale_factor=2, mode="bilinear")), IMAGE),
    "upsample_corners": (pooled(lambda: nn.Upsample(size=(9, 11), mode="bilinear", align_corners=True)), IMAGE),
    "upsample_nearest": (pooled(lambda: nn.Upsample(scale_factor=1.5)), IMAGE),
    "upsample_bicubic": (pooled(lambda: nn.Upsample(scale_factor=2, mode="bicubic")), IMAGE),
    "bag_mean": (bag(), VECTOR),
    "bag_sum": (bag(mode="sum"), VECTOR),
    "bag_maximum": (bag(mode="max"), VECTOR),
    "bag_padded": (bag(padding_idx=0), VECTOR),
}


SAME_OF_OTHERS = {"written_every_other", "taken_places", "replicate_1d", "reflect_1d", "adaptive_max_1d"}
SAME_OF_OTHERS |= {"spectral_norm_convolution", "cumsum", "deviation", "threshold", "upsample_corners"}
SAME_OF_OTHERS |= {"upsample_nearest", "upsample_bicubic", "bag_padded"}
"""On one axis what another does on two, and functions that `torch.onnx` translates."""


@pytest.mark.parametrize("name", cases(LAYERS, long=SAME_OF_OTHERS))
def test_layer_trains_as_torch_does(name: str):
    check_training(*build(*LAYERS[name]))


@pytest.mark.parametrize("name", ["instance_norm_tracked", "spectral_norm", "spectral_norm_by_hook"])
def test_buffers_stay_in_a_step_of_padding_alone(name: str):
    recipe = make_recipe(*build(*LAYERS[name]))
    before = initial_weights(recipe)
    rows, mask = batches()
    trained, _ = run_training(export(recipe), recipe, Rates(), rows[:2], np.zeros_like(mask[:2]))
    np.testing.assert_array_equal(trained, before)


@pytest.mark.parametrize("alias", ["embed.weight", "head.weight"])
def test_tied_parameter_is_selected_by_either_name(alias: str):
    recipe = make_recipe(*build(TiedLanguageModel, VECTOR))
    recipe = replace(recipe, task=msgspec.structs.replace(recipe.task, trainable=(alias,)))
    assert [parameter.name for parameter in recipe.parameters] == ["embed.weight"]


def test_spectral_norm_divides_by_vectors_of_length_one_after_a_mean_over_devices():
    layer = parametrizations.spectral_norm(nn.Linear(6, 6)).eval()
    inputs = torch.eye(6)
    expected = layer(inputs)
    with torch.no_grad():
        for vector in (layer.parametrizations.weight[0]._u, layer.parametrizations.weight[0]._v):
            vector.mul_(0.9)
    with exportable_layers(layer, LayerContext()):
        torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=TOLERANCE)
