"""Averages over windows in three dimensions, for which ONNX's pooling has no backward pass: a matrix for each axis."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from workbench.export.conversion.pooling_gradients import window_count, window_matrix

AXES = (-3, -2, -1)


def avg_pool3d(  # noqa: PLR0917 - the operator's own signature
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`aten.avg_pool3d` of f32[..., D, H, W]."""
    kernel, stride, padding = _each(kernel), _each(stride or kernel), _each(padding)
    windows = [
        window_count(inputs.shape[axis], kernel[axis], stride[axis], padding[axis], ceil_mode=ceil_mode)
        for axis in AXES
    ]
    sizes = inputs.shape[-3:]
    for axis, matrix in _matrices(sizes, windows, kernel, stride, padding, count_include_pad, divisor_override):
        inputs = (inputs.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return inputs if divisor_override is None else inputs / float(divisor_override)


def avg_pool3d_backward(  # noqa: PLR0917 - the operator's own signature
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    _ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Its gradient: the same matrices, the other way round."""
    kernel, stride, padding = _each(kernel), _each(stride or kernel), _each(padding)
    sizes, windows = inputs.shape[-3:], gradient.shape[-3:]
    for axis, matrix in _matrices(sizes, windows, kernel, stride, padding, count_include_pad, divisor_override):
        gradient = (gradient.movedim(axis, -1) @ matrix).movedim(-1, axis)
    return gradient if divisor_override is None else gradient / float(divisor_override)


def _matrices(  # noqa: PLR0917 - what a pooling is
    sizes: Sequence[int],
    windows: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_padding: bool,
    divisor: int | None,
) -> Iterator[tuple[int, Tensor]]:
    """Each axis on which windows hold more than one value, with f32[windows, size]: averages, or sums for a divisor."""
    for axis in AXES:
        if (kernel[axis], stride[axis], padding[axis]) == (1, 1, 0):
            continue
        where = (windows[axis], sizes[axis], kernel[axis], stride[axis], padding[axis])
        averages = window_matrix(*where, count_padding=count_padding)
        yield axis, averages if divisor is None else (averages > 0).to(torch.float32)


def _each(sizes: Sequence[int]) -> Sequence[int]:
    return sizes if len(sizes) == len(AXES) else [sizes[0]] * len(AXES)
