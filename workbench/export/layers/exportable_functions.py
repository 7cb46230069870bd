"""Functions of torch that can't become a graph, in a form that can, whoever calls them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from workbench.export.layers.fourier_transforms import TRANSFORMS

Sizes = int | Sequence[int]
"""One for each axis, or one for all."""


class ExportableFunctions(TorchFunctionMode):
    """Inside of the block, the functions of `FUNCTIONS` run in their exportable form."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Call what stands for the function, or itself."""
        result: object = FUNCTIONS.get(function, function)(*args, **(kwargs or {}))
        return result


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:  # noqa: A002 - torch's own name
    """What `indices` name along an axis; torch's own fixes the size of the batch."""
    if dim is None:
        return input.flatten()[indices.flatten()]
    axis = dim % input.dim()
    others = torch.broadcast_shapes(  # type: ignore[no-untyped-call] # torch has no types for it
        *([*each.shape[:axis], *each.shape[axis + 1 :]] for each in (input, indices))
    )
    values, places = (each.expand(*others[:axis], each.shape[axis], *others[axis:]) for each in (input, indices))
    return values.gather(axis, places)


def bilinear(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """f32[..., I] and f32[..., J] to f32[..., O], with a weight f32[O, I, J]."""
    products = left @ weight.permute(1, 0, 2).flatten(1)
    products = products.reshape(*products.shape[:-1], weight.shape[0], weight.shape[2])
    scores: Tensor = (products * right.unsqueeze(-2)).sum(-1)
    return scores if bias is None else scores + bias


def triangle(which: Callable[..., Any], row: int, col: int, offset: int = 0, **_: object) -> Tensor:
    """i64[2, places]: the rows and columns of one half of a matrix, by numpy's function for it."""
    return torch.tensor(np.stack(which(row, offset, col)).tolist())


def max_pool3d(  # noqa: PLR0917 - torch's own signature
    input: Tensor,  # noqa: A002
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    **_: object,
) -> Tensor:
    """Over each plane of f32[..., C, D, H, W], then over the planes: the first of equal values wins, as in torch."""
    settings = [_triple(each) for each in (kernel_size, stride or kernel_size, padding, dilation)]
    planes = _max_pool2d(input.flatten(-4, -3), [each[1:] for each in settings], ceil_mode)
    size = planes.shape[-2:]
    columns = planes.reshape(*input.shape[:-2], size.numel())
    of_depth = [[each[0], alone] for each, alone in zip(settings, (1, 1, 0, 1), strict=True)]
    pooled = _max_pool2d(columns, of_depth, ceil_mode)
    return pooled.reshape(*pooled.shape[:-1], *size)


def _max_pool2d(inputs: Tensor, settings: Sequence[list[int]], ceil_mode: bool) -> Tensor:
    kernel, stride, padding, dilation = settings
    pooled: Tensor = torch.max_pool2d(inputs, kernel, stride, padding, dilation, ceil_mode)
    return pooled


def _triple(sizes: Sizes) -> list[int]:
    return [sizes] * 3 if isinstance(sizes, int) else list(sizes) * (1 if len(sizes) == 3 else 3)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.bilinear: bilinear,
    functional.max_pool3d: max_pool3d,
    torch.max_pool3d: max_pool3d,
    torch.tril_indices: partial(triangle, np.tril_indices),
    torch.triu_indices: partial(triangle, np.triu_indices),
    torch.take_along_dim: take_along_dim,
    Tensor.take_along_dim: take_along_dim,
    **TRANSFORMS,
}
