"""Gradients that are derived by hand equal torch's own, in float64, so that nothing hides behind rounding."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from workbench.export.conversion.convolution_gradients import Geometry, input_gradient, weight_gradient
from workbench.export.conversion.decompositions import select_backward, slice_backward
from workbench.export.layers.batch_statistics import normalised_by_batch
from workbench.export.layers.recurrent_layers import gru, lstm, rnn

FORWARD: dict[type[nn.RNNBase], Callable[..., tuple[Tensor, object]]] = {nn.LSTM: lstm, nn.GRU: gru, nn.RNN: rnn}
OPTIONS: list[dict[str, bool | int]] = [
    {},
    {"bias": False},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
]
KINDS = [*product((nn.LSTM, nn.GRU, nn.RNN), OPTIONS), (nn.RNN, {"nonlinearity": "relu"})]
KINDS += [(nn.LSTM, {"proj_size": 3}), (nn.LSTM, {"proj_size": 3, "num_layers": 2, "bidirectional": True})]
GROUPS = ((3, 4, 1), (4, 8, 4), (4, 4, 4), (6, 4, 2))
KERNELS = ((1,), (3,), (5,), (1, 1), (3, 3), (3, 5), (5, 2), (1, 3), (2, 2, 2))
FEW_PIXELS = [
    *(((24, 40), kernel, (2, 2), groups) for kernel in ((1, 1), (3, 3), (3, 1)) for groups in (1, 2)),
    ((24, 40), (1, 1), (1, 1), 1),  # one pixel
    ((24, 40), (1, 1), (3, 4), 1),  # as many as one product takes for the inputs, and one more
    ((24, 40), (1, 1), (1, 13), 1),
    ((24, 40), (1,), (5,), 1),
    ((24, 40), (3,), (5,), 1),
    ((24, 40), (1, 1, 1), (2, 1, 3), 1),
    *(((12, 12), kernel, sizes, 12) for kernel in ((3, 3), (5, 5), (7, 7)) for sizes in ((2, 2), (5, 5), (7, 8))),
    ((12, 12), (11,), (4,), 12),
    ((12, 12), (11,), (20,), 12),
]
"""Channels and outputs, kernel, sizes, groups."""
ROWS, STEPS, FEATURES, WIDTH = 4, 6, 5, 7


def layer(kind: type[nn.RNNBase], options: dict[str, bool | int]) -> nn.RNNBase:
    torch.manual_seed(0)
    return kind(FEATURES, WIDTH, batch_first=True, **options).double()


def flat(result: tuple[Tensor, object]) -> list[Tensor]:
    outputs, last = result
    return [outputs, *last] if isinstance(last, tuple) else [outputs, last]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
def test_recurrent_layer_and_its_gradients_are_torchs(kind, options):
    part = layer(kind, options)
    inputs = torch.randn(ROWS, STEPS, FEATURES, dtype=torch.float64, requires_grad=True)
    count = part.num_layers * (2 if part.bidirectional else 1)
    sizes = [part.proj_size or WIDTH, WIDTH] if kind is nn.LSTM else [WIDTH]
    state = [torch.randn(count, ROWS, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    initial = tuple(state) if kind is nn.LSTM else state[0]
    leaves = [inputs, *state, *part.parameters()]
    expected, found = flat(part(inputs, initial)), flat(FORWARD[kind](None, "", part, inputs, initial))
    cotangents = [torch.randn_like(value) for value in expected]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, cotangents), torch.autograd.grad(expected, leaves, cotangents)
    )


@pytest.mark.parametrize("kind", FORWARD, ids=str)
def test_gradients_of_each_row_by_itself_are_torchs(kind):
    part = layer(kind, {})
    inputs = torch.randn(ROWS, STEPS, FEATURES, dtype=torch.float64)
    expected = [torch.autograd.grad(part(row.unsqueeze(0))[0].sum(), list(part.parameters())) for row in inputs]
    part.__dict__["forward"] = lambda values: FORWARD[kind](None, "", part, values)[0]

    def summed(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(part, parameters, (row.unsqueeze(0),)).sum()

    found = vmap(grad(summed), in_dims=(None, 0))(dict(part.named_parameters()), inputs)
    for number, one in enumerate(expected):
        torch.testing.assert_close([value[number] for value in found.values()], list(one))


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_gradients_of_a_convolution_are_torchs(kernel):
    sizes = (7, 8, 6) if len(kernel) > 2 else (11, 13)[: len(kernel)]
    for (channels, outputs, groups), stride, dilation, padding in product(GROUPS, (1, 2), (1, 2), (0, 2)):
        geometry = Geometry(*([number] * len(kernel) for number in (stride, padding, dilation)), groups)
        check_convolution((channels, outputs), kernel, sizes, geometry)


@pytest.mark.parametrize(("channels", "kernel", "sizes", "groups"), FEW_PIXELS, ids=str)
def test_gradients_of_a_wide_convolution_on_few_pixels_are_torchs(channels, kernel, sizes, groups):
    for stride, dilation in ((1, 1), (1, 2), (2, 1)):
        padding = [size // 2 * dilation for size in kernel]
        geometry = Geometry([stride] * len(kernel), padding, [dilation] * len(kernel), groups)
        check_convolution(channels, kernel, sizes, geometry)


def check_convolution(
    channels: tuple[int, int], kernel: tuple[int, ...], sizes: tuple[int, ...], geometry: Geometry
) -> None:
    inputs = torch.randn(3, channels[0], *sizes, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels[1], channels[0] // geometry.groups, *kernel, dtype=torch.float64, requires_grad=True)
    stride, padding, dilation = geometry.stride, geometry.padding, geometry.dilation
    result = torch.convolution(
        inputs, weight, None, stride, padding, dilation, False, [0] * len(kernel), geometry.groups
    )
    gradient = torch.randn_like(result)
    expected = torch.autograd.grad(result, (inputs, weight), gradient)
    found = (
        input_gradient(gradient, weight.detach(), sizes, geometry),
        weight_gradient(gradient, inputs.detach(), kernel, geometry),
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("part", [slice(None), slice(2, 5), slice(-3, None), slice(1, 8, 3), slice(0, 9, 2)], ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gradient_of_a_slice_is_torchs(part, axis):
    values = torch.randn(9, 9, 9, dtype=torch.float64, requires_grad=True)
    start, end, step = part.start or 0, 2**63 - 1 if part.stop is None else part.stop, part.step or 1
    result = torch.ops.aten.slice.Tensor(values, axis, start, end, step)
    gradient = torch.randn_like(result)
    (expected,) = torch.autograd.grad(result, values, gradient)
    torch.testing.assert_close(slice_backward(gradient, values.shape, axis, start, end, step), expected)


@pytest.mark.parametrize(("axis", "index"), [(0, 0), (1, -1), (-1, 4)])
def test_gradient_of_an_entry_is_torchs(axis, index):
    values = torch.randn(9, 9, 9, dtype=torch.float64, requires_grad=True)
    result = values.select(axis, index)
    gradient = torch.randn_like(result)
    (expected,) = torch.autograd.grad(result, values, gradient)
    torch.testing.assert_close(select_backward(gradient, values.shape, axis, index), expected)


@pytest.mark.parametrize("places", [(), (5,), (3, 4)], ids=str)
@pytest.mark.parametrize("is_affine", [True, False])
def test_normalisation_by_a_batch_and_its_gradients_are_torchs_and_padding_has_no_part(places, is_affine):
    values = torch.randn(ROWS, 3, *places, dtype=torch.float64, requires_grad=True)
    scales = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2 * is_affine)]
    real = ROWS - 1
    rows = torch.tensor([1 / real] * real + [0.0], dtype=torch.float64)
    expected = nn.functional.batch_norm(values[:real], None, None, *(scales or [None] * 2), training=True, eps=1e-3)
    found, *_ = normalised_by_batch(values, rows, *(scales or [None] * 2), 1e-3)
    torch.testing.assert_close(found[:real], expected)
    cotangent = torch.randn_like(expected)
    leaves = [values, *scales]
    torch.testing.assert_close(
        torch.autograd.grad(found[:real], leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
    )


def test_second_derivatives_and_those_of_statistics_of_a_batch_are_right():
    def normalised(values: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return normalised_by_batch(values, torch.full((ROWS,), 1 / ROWS, dtype=torch.float64), weight, bias, 1e-3)

    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((ROWS, 3, 2), (3,), (3,))]
    assert torch.autograd.gradcheck(normalised, inputs)
    assert torch.autograd.gradgradcheck(normalised, inputs)
