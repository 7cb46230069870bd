"""What an export computes otherwise than torch stops it, with the layer's name; what draws follows a seed."""

import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fleet_protocol.errors import ConfigurationError
from tests.support.cases import cases
from tests.support.training import Rates, batches, build, export, make_recipe, run_training, with_head
from workbench.export.bundle_writer import bundle_files
from workbench.export.conversion.decompositions import decomposition_table
from workbench.export.layers import exportable_layers
from workbench.export.recipe.recipe import read_recipe

IMAGE, SEQUENCE, VECTOR = (2, 8, 8), (4, 3), (8,)


class Called(nn.Module):
    """A function as a layer, with the layers that it uses."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(inputs, *self.layers)


def between(function: Callable[..., Tensor], *layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), Called(function, *layers), nn.Linear(6, 4))


def linears() -> tuple[nn.Module, nn.Module]:
    return nn.Linear(8, 6), nn.Linear(6, 4)


def exported(make: Callable[[], nn.Module], shape: tuple[int, ...], **settings: object) -> dict[str, bytes]:
    return bundle_files(make_recipe(*build(make, shape), **settings), tell=lambda _: None)


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: between(lambda values: values - values.mean(0)), VECTOR, r"a padded batch.*'1' \(Called\) mixes"),
        (
            lambda: Called(lambda values, layer, head: head(layer(values) / values.shape[0]), *linears()),
            VECTOR,
            r"a padded batch.*the model itself \(Called\) mixes the samples",
        ),
        (
            lambda: with_head(Called(lambda values, gru: gru(values)[0], nn.GRU(3, 5))),
            SEQUENCE,
            r"'0\.layers\.0' \(GRU\) can't be exported: its steps are the rows.*batch_first=True",
        ),
        (
            lambda: with_head(
                Called(lambda values: (values.abs() * 2).clamp(max=9).long()),
                nn.Embedding(10, 3, scale_grad_by_freq=True),
            ),
            VECTOR,
            r"a padded batch, the parameter '1\.weight' differs.*no scale_grad_by_freq",
        ),
    ],
)
def test_what_mixes_the_samples_of_a_batch_is_refused_by_name(make, shape, words: str):
    with pytest.raises(ConfigurationError, match=words):
        exported(make, shape)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: with_head(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2, divisor_override=1)), IMAGE),
        (lambda: with_head(nn.Conv2d(2, 4, 3), nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=4)), IMAGE),
        (lambda: between(lambda values: torch.log(values.relu() + 1e-9)), VECTOR),
    ],
    ids=["divisor_override", "divisor_override_ceil", "log_of_almost_zero"],
)
def test_what_the_converter_would_get_wrong_is_exported_exactly(make, shape):
    assert "train.onnx" in exported(make, shape)


def test_a_key_bias_that_adam_moves_by_its_rounding_stops_no_export():
    layer = lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)  # noqa: E731 - made anew
    assert "train.onnx" in exported(lambda: with_head(layer()), (5, 8), optimiser="adam")


def test_a_layer_that_is_exported_wrongly_is_named():
    plain = functional.linear
    with (
        mock.patch.object(exportable_layers, "_MATRIX_LINEAR", lambda *given: plain(*given) * 1.0001),
        pytest.raises(ConfigurationError, match=r"module '0' \(Linear\) is exported as something else"),
    ):
        exported(lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)), VECTOR)


def test_a_gradient_that_is_exported_wrongly_is_found_at_the_layer_it_comes_from():
    operator = torch.ops.aten.tanh_backward.default
    wrong = {**decomposition_table(), operator: lambda gradient, output: gradient * (1.01 - output * output)}
    with (
        mock.patch("workbench.export.conversion.tracing.decomposition_table", lambda: wrong),
        pytest.raises(ConfigurationError, match=r"the parameter '0\..*the gradient of module '1' \(Tanh\)"),
    ):
        exported(lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)), VECTOR)


def drop_path(values: Tensor) -> Tensor:
    kept = values.new_empty((values.shape[0], 1)).bernoulli_(0.7)
    kept.div_(0.7)
    return values * kept


NOISE: dict[str, Callable[[Tensor], Tensor]] = {
    "randn_like": lambda values: values + torch.randn_like(values),
    "randn": lambda values: values + torch.randn(values.shape),
    "rand": lambda values: values * torch.rand(values.shape[0], 6),
    "bernoulli": lambda values: values * torch.bernoulli(torch.full_like(values, 0.7)),
    "drop_path": drop_path,
    "exponential": lambda values: values + torch.empty_like(values).exponential_(),
    "gumbel_softmax": lambda values: functional.gumbel_softmax(values, hard=True),
    "rrelu": lambda values: functional.rrelu(values, training=True),
    "alpha_dropout": lambda values: functional.alpha_dropout(values, 0.3, training=True),
    "torch_dropout": lambda values: torch.dropout(values, 0.3, train=True),
    "normal": lambda values: values + torch.normal(0.0, 1.0, values.shape),
    "distribution": lambda values: torch.distributions.Normal(values, 1.0).rsample(),
}


OF_THE_SAME_NUMBERS = {"randn", "rand", "drop_path", "gumbel_softmax", "torch_dropout", "distribution"}


@pytest.mark.parametrize("name", cases(NOISE, long=OF_THE_SAME_NUMBERS))
def test_noise_follows_the_seed_of_the_step(name: str):
    recipe = make_recipe(*build(lambda: between(NOISE[name]), VECTOR))
    session = export(recipe)
    assert "seed" in [entry.name for entry in session.get_inputs()]
    first, second = (run_training(session, recipe, Rates(), *batches())[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_noise_is_compared_with_torch_on_the_same_values():
    assert "train.onnx" in exported(lambda: between(NOISE["randn_like"]), VECTOR)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda values: values * torch.multinomial(torch.ones(6), 6), "multinomial"),
        (lambda values: values * torch.poisson(values.abs()), "poisson"),
    ],
)
def test_noise_that_no_seed_reaches_is_refused_by_name(function, name: str):
    with pytest.raises(ConfigurationError, match=f"{name}, which draws random numbers.*torch.rand"):
        exported(lambda: between(function), VECTOR)


DRAWS_EVERYWHERE = """
import random
import numpy as np
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((10,), random.random() + np.random.rand()))

    def forward(self, inputs):
        return inputs * self.scale

def build():
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(10), Scaled())
"""


def test_lazy_layers_and_every_generator_follow_the_recipes_seed(tmp_path: Path):
    task = (Path(__file__).parents[2] / "models" / "digits" / "task.toml").read_text()
    (tmp_path / "task.toml").write_text(task)
    (tmp_path / "model.py").write_text(DRAWS_EVERYWHERE)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = random.getstate()
        states.append(read_recipe(tmp_path).module.state_dict())
        assert random.getstate() == before
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0)


def over_image(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: with_head(nn.Conv2d(2, 4, 3), *layers)


def resized(**settings: object) -> nn.Module:
    return Called(lambda values: functional.interpolate(values, **settings))


ATTRIBUTES: dict[str, Callable[[], nn.Module]] = {
    "average_over_the_edge": over_image(nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "average_without_padding": over_image(nn.AvgPool2d(4, 3, 2, ceil_mode=True, count_include_pad=False)),
    "maximum_dilated_over_the_edge": over_image(nn.MaxPool2d(2, 2, 1, dilation=2, ceil_mode=True)),
    "circular_padding": over_image(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")),
    "reflected_padding": over_image(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
    "same_padding_of_an_even_kernel": over_image(nn.Conv2d(4, 4, 4, padding="same", dilation=2)),
    "transposed_dilated": over_image(nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, dilation=2)),
    "bilinear": over_image(resized(size=(9, 11), mode="bilinear", align_corners=False)),
    "bilinear_aligned": over_image(resized(size=(9, 11), mode="bilinear", align_corners=True)),
    "nearest": over_image(resized(size=(9, 11))),
    "padding_index": lambda: with_head(
        nn.Flatten(), Called(lambda values: (values.abs() * 2).clamp(max=9).long()), nn.Embedding(10, 3, padding_idx=2)
    ),
    "softplus": over_image(nn.Softplus(beta=3, threshold=1)),
    "unbiased_deviation": over_image(Called(lambda values: values / values.std(1, keepdim=True))),
    "division_rounded_down": over_image(Called(lambda values: values + torch.div(values, 0.3, rounding_mode="floor"))),
}


TRAINED_ELSEWHERE = {"average_without_padding", "circular_padding", "reflected_padding", "transposed_dilated"}
TRAINED_ELSEWHERE |= {"bilinear", "bilinear_aligned", "nearest"}


@pytest.mark.parametrize("name", cases(ATTRIBUTES, long=TRAINED_ELSEWHERE))
def test_what_a_layer_is_told_reaches_the_graph(name: str):
    assert "train.onnx" in exported(ATTRIBUTES[name], IMAGE)
