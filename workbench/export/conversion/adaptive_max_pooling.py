"""Adaptive max pooling over windows of any size, and its gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

Windows = tuple[Sequence[int], Sequence[int]]
"""Kernel and stride of windows that are all alike."""


def adaptive_max_pool2d(inputs: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The greatest value f32[B, C, *sizes] of each window of f32[B, C, H, W], and its place in the plane, i64.

    Of equal values the first counts, as in torch.
    """
    if (windows := _even_windows(inputs.shape[-2:], sizes)) is not None:
        values, places = torch.ops.aten.max_pool2d_with_indices.default(inputs, *windows)
        return values, places
    members = _members(inputs.shape[-2:], sizes)
    values, chosen = inputs.flatten(-2)[..., members].max(dim=-1)
    which = (chosen.unsqueeze(-1) == torch.arange(members.shape[-1])).to(torch.int64)
    return values, (which * members).sum(-1)


def adaptive_max_pool2d_backward(gradient: Tensor, inputs: Tensor, places: Tensor) -> Tensor:
    """Gradient of `adaptive_max_pool2d`: each value's goes to the place that it came from."""
    if (windows := _even_windows(inputs.shape[-2:], gradient.shape[-2:])) is not None:
        backward = torch.ops.aten.max_pool2d_with_indices_backward.default
        spread: Tensor = backward(gradient, inputs, *windows, [0, 0], [1, 1], False, places)
        return spread
    flat = torch.zeros_like(inputs).flatten(-2)
    return flat.scatter_add(-1, places.flatten(-2), gradient.flatten(-2)).reshape(inputs.shape)


def _even_windows(lengths: Sequence[int], sizes: Sequence[int]) -> Windows | None:
    """The windows where they divide both axes evenly."""
    if any(length % size for length, size in zip(lengths, sizes, strict=True)):
        return None
    kernel = [length // size for length, size in zip(lengths, sizes, strict=True)]
    return kernel, kernel


def _members(lengths: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """i64[*sizes, K]: the places in the plane that belong to each window; short windows repeat their last place."""
    rows, columns = (_spans(length, size) for length, size in zip(lengths, sizes, strict=True))
    places = [
        [[row * lengths[1] + column for row in row_span for column in column_span] for column_span in columns]
        for row_span in rows
    ]
    return torch.tensor(places)


def _spans(length: int, windows: int) -> list[list[int]]:
    """Window i holds floor(i * length / windows) to ceil((i + 1) * length / windows); all are made equally long."""
    spans = [list(range(number * length // windows, -(-(number + 1) * length // windows))) for number in range(windows)]
    longest = max(map(len, spans))
    return [span + [span[-1]] * (longest - len(span)) for span in spans]
