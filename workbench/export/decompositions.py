"""How operators are decomposed before conversion: torch's core table, and our own entries for ONNX.

A backward operator without a counterpart in ONNX becomes exportable by one entry in `OURS`.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload

from workbench.export.adaptive_max_pooling import adaptive_max_pool2d, adaptive_max_pool2d_backward
from workbench.export.convolution_gradients import convolution_backward
from workbench.export.pooling_gradients import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
)

Decomposition = Callable[..., object]


def threshold_backward(gradient: Tensor, values: Tensor, threshold: float) -> Tensor:
    """Gradient of ReLU, from its output, and of a threshold. A product would turn an infinite gradient into NaN."""
    return torch.where(values <= threshold, 0.0, gradient)


def zeros_instead_of_empty(like: Tensor, **_: object) -> Tensor:
    """Memory that is written before it is read, as autograd uses it inside SiLU; ONNX has no uninitialised tensor."""
    return torch.zeros_like(like)


def squeeze_what_is_one(inputs: Tensor, axes: Sequence[int]) -> Tensor:
    """Drop those of `axes` that have length 1; ONNX would insist that each of them has."""
    for axis in sorted((axis % inputs.dim() for axis in axes), reverse=True):
        if inputs.shape[axis] == 1:
            inputs = inputs.select(axis, 0)
    return inputs


def diagonal_backward(gradient: Tensor, sizes: Sequence[int], offset: int, first: int, second: int) -> Tensor:
    """Gradient of the diagonal of a square matrix f32[N, N], as contrastive losses take it.

    Raises:
        NotImplementedError: another diagonal, or of another tensor.
    """
    if offset or (first, second) != (0, 1) or len(sizes) != 2 or sizes[0] != sizes[1]:
        raise NotImplementedError(f"the diagonal {offset} of {list(sizes)}; take the main one of a square matrix")
    numbers = torch.arange(gradient.shape[0])
    return torch.where(numbers.unsqueeze(1) == numbers, gradient.unsqueeze(1), 0.0)


OURS: dict[OpOverload, Decomposition] = {
    torch.ops.aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    torch.ops.aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
    torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
    torch.ops.aten.adaptive_max_pool2d_backward.default: adaptive_max_pool2d_backward,
    torch.ops.aten.avg_pool2d.default: avg_pool2d,
    torch.ops.aten.avg_pool2d_backward.default: avg_pool2d_backward,
    torch.ops.aten.convolution_backward.default: convolution_backward,
    torch.ops.aten.diagonal_backward.default: diagonal_backward,
    torch.ops.aten.empty_like.default: zeros_instead_of_empty,
    torch.ops.aten.squeeze.dims: squeeze_what_is_one,
    torch.ops.aten.threshold_backward.default: threshold_backward,
}


BEYOND_CORE = (
    torch.ops.aten.copysign,
    torch.ops.aten.cumprod,
    torch.ops.aten.dist,
    torch.ops.aten.fmax,
    torch.ops.aten.fmin,
    torch.ops.aten.max_pool2d_with_indices_backward,
    torch.ops.aten.sym_numel,
    torch.ops.aten.var,
    torch.ops.aten.var_mean,
)
"""Core operators to torch, unknown to ONNX, that torch can take apart nevertheless."""


@cache
def decomposition_table() -> dict[OpOverload, Decomposition]:
    """Operator to decomposition, for `make_fx`."""
    return {**core_aten_decompositions(), **get_decompositions(BEYOND_CORE), **OURS}
