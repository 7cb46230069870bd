"""The backward pass of convolutions as convolutions: ONNX has Conv and ConvTranspose, but no gradient of either."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

FEW_PLACES = 12
"""With a kernel of one and no more places a row, the inputs' gradient is one product; measured as `FEW_TAPS` was."""

FEW_TAPS = 9
"""A depthwise kernel of no more entries is summed up entry by entry; measured with onnxruntime 1.32 on x86-64."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel moves over the spatial axes; one number per axis."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int


def convolution_backward(  # noqa: PLR0917 - the operator's own signature
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of inputs, weight and bias of `aten.convolution`, each only if `wanted`."""
    geometry = Geometry(stride, padding, dilation, groups)
    of_inputs = of_weight = of_bias = None
    if transposed:  # a transposed convolution is the gradient of a convolution with inputs and gradient in turned roles
        if wanted[0]:
            of_inputs = torch.convolution(
                gradient, weight, None, stride, padding, dilation, False, _none(stride), groups
            )
        if wanted[1]:
            of_weight = weight_gradient(inputs, gradient, weight.shape[2:], geometry)
    else:
        if wanted[0]:
            of_inputs = input_gradient(gradient, weight, inputs.shape[2:], geometry)
        if wanted[1]:
            of_weight = weight_gradient(gradient, inputs, weight.shape[2:], geometry)
    if wanted[2] and bias_sizes is not None:
        of_bias = gradient.sum(dim=[0, *range(2, gradient.dim())])
    return of_inputs, of_weight, of_bias


def input_gradient(gradient: Tensor, weight: Tensor, sizes: Sequence[int], geometry: Geometry) -> Tensor:
    """A transposed convolution that gives back inputs of these spatial sizes, or a plain one with a kernel of one."""
    padding, dilation = geometry.padding, geometry.dilation
    if {*weight.shape[2:], *geometry.stride} == {1} and not any(padding):
        if geometry.groups == 1 and prod(sizes) <= FEW_PLACES:
            return _by_places(gradient, weight)
        turned = weight.reshape(geometry.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
        return torch.convolution(
            gradient, turned, None, geometry.stride, padding, dilation, False, padding, geometry.groups
        )
    missing = [
        size - ((steps - 1) * stride - 2 * pad + spread * (kernel - 1) + 1)
        for size, steps, stride, pad, spread, kernel in zip(
            sizes, gradient.shape[2:], geometry.stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    return torch.convolution(gradient, weight, None, geometry.stride, padding, dilation, True, missing, geometry.groups)


def _by_places(gradient: Tensor, weight: Tensor) -> Tensor:
    """The inputs' gradient f32[B, C, ...] for a kernel of one, as one product whose rows are the batch's places."""
    (outputs, channels), sizes = weight.shape[:2], gradient.shape[2:]
    products = gradient.flatten(2).transpose(1, 2).reshape(-1, outputs) @ weight.reshape(outputs, channels)
    return products.reshape(-1, prod(sizes), channels).transpose(1, 2).reshape(-1, channels, *sizes)


def weight_gradient(gradient: Tensor, inputs: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """The correlation of inputs f32[B, C, ...] with the gradient f32[B, D, ...], as f32[D, C / groups, *kernel].

    As one convolution its kernel would be as large as the image. That is the cheapest way only where the layer's own
    kernel jumps over places, or is depthwise and as large as the image; otherwise copies and matrix products take a
    third to a half of the time.
    """
    is_depthwise = geometry.groups == inputs.shape[1] == gradient.shape[1]
    if {*kernel} == {1} and not any(geometry.padding):
        inputs = _every(inputs, geometry.stride)
    elif {*geometry.stride} != {1} or len(kernel) > 2 or (is_depthwise and prod(gradient.shape[2:]) <= prod(kernel)):
        return _as_convolution(gradient, inputs, kernel, geometry)
    padded = _padded(inputs, geometry.padding)
    if is_depthwise and prod(kernel) <= FEW_TAPS:
        return _tap_by_tap(gradient, padded, kernel, geometry)
    if is_depthwise:  # the batch becomes one more axis to sum over: many small products are fewer, longer ones
        gradient, padded = (values.transpose(0, 1).unsqueeze(0) for values in (gradient, padded))
        return _by_shifts(gradient, padded, kernel, geometry)
    if _is_wide(gradient, inputs, kernel, geometry.groups):
        return _by_one_product(gradient, padded, kernel, geometry)
    return _by_shifts(gradient, padded, kernel, geometry)


def _is_wide(gradient: Tensor, inputs: Tensor, kernel: Sequence[int], groups: int) -> bool:
    """Whether a group has at least as many weights as one row of the batch has gradients and copied inputs for it."""
    outputs, copies = gradient.shape[1] // groups, inputs.shape[1] // groups * prod(kernel)
    return outputs * copies >= prod(gradient.shape[2:]) * (outputs + copies)


def _tap_by_tap(gradient: Tensor, padded: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """Depthwise, with a small kernel: each entry is the sum of a product of inputs, shifted, and gradient."""
    axes = list(range(2, gradient.dim()))
    sums = [(shifted * gradient).sum(axes) for shifted in _taps(gradient, padded, kernel, geometry)]
    return torch.stack(sums, dim=2).sum(0).reshape(gradient.shape[1], 1, *kernel)


def _by_one_product(gradient: Tensor, padded: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """One matrix product over batch and places: of the gradient with the inputs, copied once for each entry."""
    groups, outputs = geometry.groups, gradient.shape[1]
    copies = _stacked(list(_taps(gradient, padded.transpose(0, 1), kernel, geometry)), dim=1)
    by_group = copies.reshape(groups, padded.shape[1] // groups * prod(kernel), -1)
    products = torch.bmm(gradient.transpose(0, 1).reshape(groups, outputs // groups, -1), by_group.transpose(1, 2))
    return products.reshape(outputs, padded.shape[1] // groups, *kernel)


def _taps(gradient: Tensor, padded: Tensor, kernel: Sequence[int], geometry: Geometry) -> Iterator[Tensor]:
    """For each entry of the kernel the inputs that it meets, one for each place; traced where each is used."""
    offsets = (range(0, spread * size, spread) for spread, size in zip(geometry.dilation, kernel, strict=True))
    return (_window(padded, starts, gradient.shape[2:]) for starts in product(*offsets))


def _window(values: Tensor, starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True), start=2):
        values = values.narrow(axis, start, size)
    return values


def _by_shifts(gradient: Tensor, padded: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """Shifts along the last axis are copies of the inputs, those along the one before it copies of the gradient, with
    zeros around it; one matrix product of all with all, row by row of the batch, has every entry of the kernel.
    """
    groups = geometry.groups
    *upper, width = kernel
    height = upper[0] if upper else 1
    columns = [padded.narrow(-1, geometry.dilation[-1] * step, gradient.shape[-1]) for step in range(width)]
    bands = [gradient]
    if height > 1:
        left = geometry.dilation[0] * (height - 1)
        offsets = [geometry.dilation[0] * step for step in range(height)]
        bands = [torch.constant_pad_nd(gradient, [0, 0, offset, left - offset]) for offset in offsets]
    left_side, right_side = (
        _stacked(copies, dim=2).reshape(-1, copies[0].shape[1] // groups * len(copies), prod(copies[0].shape[2:]))
        for copies in (bands, columns)
    )
    # Nothing stands between transpose and product, so that onnxruntime makes one of the two.
    products = torch.bmm(left_side, right_side.transpose(1, 2))
    products = products.reshape(-1, groups, *products.shape[1:]).sum(0)
    by_entry = products.reshape(gradient.shape[1], height, padded.shape[1] // groups, width)
    return by_entry.transpose(1, 2).reshape(gradient.shape[1], padded.shape[1] // groups, *kernel)


def _stacked(copies: Sequence[Tensor], dim: int) -> Tensor:
    return torch.stack(list(copies), dim) if len(copies) > 1 else copies[0]


def _every(inputs: Tensor, stride: Sequence[int]) -> Tensor:
    """Every so many-th place along each spatial axis."""
    for axis, step in enumerate(stride, start=2):
        inputs = inputs[(slice(None),) * axis + (slice(None, None, step),)]
    return inputs


def _padded(inputs: Tensor, padding: Sequence[int]) -> Tensor:
    ends = [size for pad in reversed(padding) for size in (pad, pad)]
    return torch.constant_pad_nd(inputs, ends) if any(ends) else inputs


def _as_convolution(gradient: Tensor, inputs: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """The batch takes the place of the channels, the gradient that of the kernel; stride and dilation change roles."""
    groups = geometry.groups
    channels = inputs.shape[1] // geometry.groups
    spatial = list(inputs.shape[2:])
    rows, swapped = inputs.shape[0], inputs.transpose(0, 1)
    if groups > 1:
        swapped = swapped.reshape(groups, channels, rows, *spatial).transpose(0, 1)
        swapped = swapped.reshape(channels, groups * rows, *spatial)
    correlation = torch.convolution(
        swapped,
        gradient.transpose(0, 1),
        None,
        geometry.dilation,
        geometry.padding,
        geometry.stride,
        False,
        _none(kernel),
        groups,
    )
    for axis, size in enumerate(kernel, start=2):  # a stride that doesn't divide the inputs leaves positions over
        if correlation.shape[axis] != size:
            correlation = correlation.narrow(axis, 0, size)
    return correlation.transpose(0, 1)


def _none(sizes: Sequence[int]) -> list[int]:
    return [0] * len(sizes)
