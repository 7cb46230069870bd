"""The backward pass of convolutions as convolutions: ONNX has Conv and ConvTranspose, but no gradient of either."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
    """A transposed convolution that gives back inputs of the spatial `sizes`."""
    padding, dilation = geometry.padding, geometry.dilation
    missing = [
        size - ((steps - 1) * stride - 2 * pad + spread * (kernel - 1) + 1)
        for size, steps, stride, pad, spread, kernel in zip(
            sizes, gradient.shape[2:], geometry.stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    return torch.convolution(gradient, weight, None, geometry.stride, padding, dilation, True, missing, geometry.groups)


def weight_gradient(gradient: Tensor, inputs: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """The correlation of inputs f32[B, C, ...] with the gradient f32[B, D, ...], as f32[D, C / groups, *kernel].

    The batch takes the place of the channels, the gradient that of the kernel, and stride and dilation change roles.
    """
    groups = geometry.groups
    channels = inputs.shape[1] // geometry.groups
    spatial = list(inputs.shape[2:])
    rows, swapped = inputs.shape[0], inputs.transpose(0, 1)
    if groups > 1:
        swapped = swapped.reshape(groups, channels, rows, *spatial).transpose(0, 1)
        swapped = swapped.reshape(channels, groups * rows, *spatial)
    elif {*kernel, *geometry.stride} == {1} and not any(geometry.padding):  # a third of the time of the convolution
        product = gradient.transpose(0, 1).flatten(1) @ swapped.flatten(1).T
        return product.reshape(*product.shape, *kernel)
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
