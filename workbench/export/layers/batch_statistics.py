"""Normalisation by the statistics of a batch, with the backward pass derived by hand.

Autograd differentiates mean and variance apart, in twice as many passes over the values. Together they come to
Ioffe & Szegedy 2015, section 3, with the rows weighed.
"""

from typing import Any

import torch
from torch import Tensor


def normalised_by_batch(
    values: Tensor, rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Values f32[B, C, ...] normalised, then scaled by `weight` and shifted by `bias`; their mean and biased variance.

    These four are f32[C]. `rows` f32[B] weighs the rows and adds up to 1, or is all 0; nothing is differentiated by it.
    `eps` is added to the variance.
    """
    outputs, mean, variance = _NormalisedByBatch.apply(  # type: ignore[no-untyped-call]
        values, rows, weight, bias, eps
    )
    return outputs, mean, variance


class _NormalisedByBatch(torch.autograd.Function):
    """See `normalised_by_batch`."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """See `normalised_by_batch`."""
        values, rows, weight, bias, eps = arguments
        mean = rows @ _row_means(values)
        centred = values - per_channel(mean, values)
        variance = rows @ _row_means(centred * centred)
        scale = torch.rsqrt(variance + eps)
        outputs = centred * per_channel(scale if weight is None else scale * weight, values)
        return outputs if bias is None else outputs + per_channel(bias, values), mean, variance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what `backward` reads."""
        values, rows, weight, bias, ctx.eps = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(values, rows, weight, *output[1:])

    @staticmethod
    def backward(ctx: Any, of_outputs: Tensor, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments. How the mean moves the variance adds up to 0."""
        values, rows, weight, mean, variance = ctx.saved_tensors
        centred = values - per_channel(mean, values)
        scale = torch.rsqrt(variance + ctx.eps)
        factor = scale if weight is None else scale * weight
        summed = [0, *range(2, values.dim())]
        of_bias, along = of_outputs.sum(summed), (of_outputs * centred).sum(summed)
        share = rows.unsqueeze(1) * (of_mean.numel() / values[0].numel())
        shift = share * (of_mean - factor * of_bias)
        slope = share * (2 * of_variance - factor * scale * scale * along)
        of_values = of_outputs * per_channel(factor, values) + centred * _per_place(slope, values)
        of_weight = None if weight is None else scale * along
        return of_values + _per_place(shift, values), None, of_weight, of_bias if ctx.has_bias else None, None


def per_channel(channels: Tensor, values: Tensor) -> Tensor:
    """f32[C] in the shape that broadcasts to f32[B, C, ...]."""
    return channels.reshape(1, -1, *[1] * (values.dim() - 2))


def _per_place(entries: Tensor, values: Tensor) -> Tensor:
    """f32[B, C] in that shape."""
    return entries.reshape(*entries.shape, *[1] * (values.dim() - 2))


def _row_means(values: Tensor) -> Tensor:
    return values.mean(dim=tuple(range(2, values.dim()))) if values.dim() > 2 else values
