"""How operators are taken apart before conversion: torch's core table, and what we know better for ONNX.

A backward operator without a counterpart in ONNX becomes exportable by one entry in `OURS`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload

from workbench.export.convolution_gradients import convolution_backward
from workbench.export.pooling_gradients import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d_backward,
)

Decomposition = Callable[..., object]


def relu_backward(gradient: Tensor, output: Tensor, threshold: float) -> Tensor:
    """Gradient of ReLU from its output: one comparison-free product, faster than the usual compare and select.

    Raises:
        NotImplementedError: `threshold` isn't 0, so this isn't ReLU.
    """
    if threshold != 0:
        raise NotImplementedError(f"threshold_backward with threshold {threshold}")
    return gradient * torch.sign(output)


def zeros_instead_of_empty(like: Tensor, **_: object) -> Tensor:
    """Memory that is written before it is read, as autograd uses it inside SiLU; ONNX has no uninitialised tensor."""
    return torch.zeros_like(like)


OURS: dict[OpOverload, Decomposition] = {
    torch.ops.aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    torch.ops.aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
    torch.ops.aten.avg_pool2d_backward.default: avg_pool2d_backward,
    torch.ops.aten.convolution_backward.default: convolution_backward,
    torch.ops.aten.empty_like.default: zeros_instead_of_empty,
    torch.ops.aten.threshold_backward.default: relu_backward,
}


def decomposition_table() -> dict[OpOverload, Decomposition]:
    """Operator to decomposition, for `make_fx`."""
    return {**core_aten_decompositions(), **OURS}
