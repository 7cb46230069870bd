"""How operators are decomposed before conversion: torch's core table, and our own entries for ONNX.

A backward operator without a counterpart in ONNX becomes exportable by one entry in `OURS`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import prod

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload

from workbench.export.conversion.adaptive_max_pooling import adaptive_max_pool2d, adaptive_max_pool2d_backward
from workbench.export.conversion.averaged_volumes import avg_pool3d, avg_pool3d_backward
from workbench.export.conversion.convolution_gradients import convolution_backward
from workbench.export.conversion.max_pooling_nodes import TRANSLATIONS
from workbench.export.conversion.pooling_gradients import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d_backward,
)
from workbench.export.conversion.strided_views import as_strided, as_strided_scatter

Decomposition = Callable[..., object]


def threshold_backward(gradient: Tensor, values: Tensor, threshold: float) -> Tensor:
    """Gradient of ReLU, from its output, and of a threshold. A product would turn an infinite gradient into NaN."""
    return torch.where(values <= threshold, 0.0, gradient)


def leaky_relu_backward(gradient: Tensor, values: Tensor, slope: float, _from_output: bool) -> Tensor:
    """Gradient of LeakyReLU: a product with its slope at each value, which takes fewer passes than a selection."""
    if 0.0 <= slope <= 1.0:
        return gradient * (values > 0.0).to(gradient.dtype).clamp_min(slope)
    return torch.where(values > 0.0, gradient, gradient * slope)


def zeros_instead_of_empty(like: Tensor, **_: object) -> Tensor:
    """Memory that is written before it is read, as autograd uses it inside SiLU; ONNX has no uninitialised tensor."""
    return torch.zeros_like(like)


def copied(target: Tensor, source: Tensor, _non_blocking: bool = False) -> Tensor:
    """What is written over `target`: `source`, which the converter would leave in its own shape and type."""
    if source.shape == target.shape and source.dtype == target.dtype:
        return NotImplemented  # type: ignore[no-any-return] # left as it is, with the strides of `target`
    return source.to(target.dtype).expand(target.shape)


def squeeze_what_is_one(inputs: Tensor, axes: Sequence[int]) -> Tensor:
    """Drop those of `axes` that have length 1; ONNX would insist that each of them has."""
    for axis in sorted((axis % inputs.dim() for axis in axes), reverse=True):
        if inputs.shape[axis] == 1:
            inputs = inputs.select(axis, 0)
    return inputs


def select_backward(gradient: Tensor, sizes: Sequence[int], axis: int, index: int) -> Tensor:
    """Gradient of one entry along an axis: zeros around it."""
    return _between_zeros(gradient.unsqueeze(axis), sizes, axis, index % sizes[axis])


def slice_backward(gradient: Tensor, sizes: Sequence[int], axis: int, start: int, _end: int, step: int) -> Tensor:
    """Gradient of a slice: zeros around it, and between its entries if it leaves some out."""
    axis, count = axis % len(sizes), gradient.shape[axis]
    if step > 1 and count:
        spread = torch.constant_pad_nd(gradient.unsqueeze(axis + 1), [0, 0] * (len(sizes) - 1 - axis) + [0, step - 1])
        gradient = spread.flatten(axis, axis + 1).narrow(axis, 0, (count - 1) * step + 1)
    start = max(start + sizes[axis], 0) if start < 0 else min(start, sizes[axis])
    return _between_zeros(gradient, sizes, axis, start)


def _between_zeros(part: Tensor, sizes: Sequence[int], axis: int, start: int) -> Tensor:
    after = len(sizes) - 1 - axis % len(sizes)
    return torch.constant_pad_nd(part, [0, 0] * after + [start, sizes[axis] - start - part.shape[axis]])


def variance(
    inputs: Tensor, axes: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """`var`; torch's own decomposition wants to know how many values there are, and the batch's size is free."""
    summed = list(range(inputs.dim())) if axes is None else [axis % inputs.dim() for axis in axes]
    centred = inputs - inputs.mean(summed, keepdim=True)
    count = prod(inputs.shape[axis] for axis in summed)
    freedom = count - int(1 if correction is None else correction)
    return (centred * centred).sum(summed, keepdim=keepdim) / freedom


def unfold(inputs: Tensor, axis: int, size: int, step: int) -> Tensor:
    """Windows along `axis` as one more axis at the end."""
    axis = axis % inputs.dim()
    windows = _windows(inputs.shape[axis], size, step)
    chosen = inputs.index_select(axis, windows.flatten())
    shape = [*inputs.shape[:axis], *windows.shape, *inputs.shape[axis + 1 :]]
    return chosen.reshape(shape).movedim(axis + 1, -1)


def unfold_backward(gradient: Tensor, sizes: Sequence[int], axis: int, size: int, step: int) -> Tensor:
    """Gradient of `unfold`: each value gets the sum over the windows that it is in."""
    axis = axis % len(sizes)
    windows = _windows(sizes[axis], size, step)
    spread = gradient.movedim(-1, axis + 1).flatten(axis, axis + 1)
    return gradient.new_zeros(sizes).index_add(axis, windows.flatten(), spread)


def _windows(length: int, size: int, step: int) -> Tensor:
    """i64[windows, size]: the places of each window."""
    return torch.tensor([[start + place for place in range(size)] for start in range(0, length - size + 1, step)])


def diagonal_backward(gradient: Tensor, sizes: Sequence[int], offset: int, first: int, second: int) -> object:
    """Gradient of the main diagonal of a square matrix f32[N, N], as contrastive losses take it; no other one's."""
    if offset or (first, second) != (0, 1) or len(sizes) != 2 or sizes[0] != sizes[1]:
        return NotImplemented
    numbers = torch.arange(gradient.shape[0])
    return torch.where(numbers.unsqueeze(1) == numbers, gradient.unsqueeze(1), 0.0)


OURS: dict[OpOverload, Decomposition] = {
    torch.ops.aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    torch.ops.aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
    torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
    torch.ops.aten.adaptive_max_pool2d_backward.default: adaptive_max_pool2d_backward,
    torch.ops.aten.avg_pool2d.default: avg_pool2d,
    torch.ops.aten.avg_pool2d_backward.default: avg_pool2d_backward,
    torch.ops.aten.avg_pool3d.default: avg_pool3d,
    torch.ops.aten.avg_pool3d_backward.default: avg_pool3d_backward,
    torch.ops.aten.convolution_backward.default: convolution_backward,
    torch.ops.aten.copy.default: copied,
    torch.ops.aten.diagonal_backward.default: diagonal_backward,
    torch.ops.aten.empty_like.default: zeros_instead_of_empty,
    torch.ops.aten.leaky_relu_backward.default: leaky_relu_backward,
    torch.ops.aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
    torch.ops.aten.select_backward.default: select_backward,
    torch.ops.aten.slice_backward.default: slice_backward,
    torch.ops.aten.squeeze.dims: squeeze_what_is_one,
    torch.ops.aten.threshold_backward.default: threshold_backward,
    torch.ops.aten.unfold.default: unfold,
    torch.ops.aten.unfold_backward.default: unfold_backward,
    torch.ops.aten.var.correction: variance,
}

OF_VALUES: dict[OpOverload, Decomposition] = {
    torch.ops.aten.as_strided.default: as_strided,
    torch.ops.aten.as_strided_scatter.default: as_strided_scatter,
}
"""Of a graph in which nothing is written into: there a view is as good as a copy."""
BEYOND_CORE = (
    torch.ops.aten.copysign,
    torch.ops.aten.cumprod,
    torch.ops.aten.dist,
    torch.ops.aten.fmax,
    torch.ops.aten.fmin,
    torch.ops.aten.sym_numel,
    torch.ops.aten.var_mean,
)
"""Core operators to torch, unknown to ONNX, that torch can take apart nevertheless."""


@cache
def decomposition_table() -> dict[OpOverload, Decomposition]:
    """Operator to decomposition, for `make_fx`."""
    table = {**core_aten_decompositions(), **get_decompositions(BEYOND_CORE), **OURS}
    return {operator: each for operator, each in table.items() if operator not in TRANSLATIONS}
