"""Views by strides, which autograd makes of a tensor that is written into, as gathers with fixed places.

What is viewed lies in memory row by row, and a view leaves the rows of the batch as they are. So each row of it is made
of the same places of a row below.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def as_strided(inputs: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Tensor:
    """The view, as values of its own."""
    places = _places(inputs, size, stride, offset or 0)
    if places is None:
        return NotImplemented  # type: ignore[no-any-return] # what make_fx takes for "leave it as it is"
    return _rows(inputs, size, stride)[:, torch.from_numpy(places)].reshape(size)


def as_strided_scatter(
    inputs: Tensor, source: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Tensor:
    """`inputs` with `source` in place of what the view would show."""
    places = _places(inputs, size, stride, offset or 0)
    if places is None:
        return NotImplemented  # type: ignore[no-any-return] # as above
    rows = _rows(inputs, size, stride)
    sources = np.full(rows.shape[1], -1)
    sources[places] = np.arange(len(places))
    taken = source.reshape(rows.shape[0], len(places))[:, torch.from_numpy(sources.clip(0))]
    return torch.where(torch.from_numpy(sources >= 0), taken, rows).reshape(inputs.shape)


def _has_batch(size: Sequence[int]) -> bool:
    return bool(size) and isinstance(size[0], torch.SymInt)


def _rows(inputs: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """What lies in memory, f32[B, values of a row]; one row of all where no axis of the view is the batch's."""
    return inputs.reshape(-1, stride[0]) if _has_batch(size) else inputs.reshape(1, -1)


def _places(inputs: Tensor, size: Sequence[int], stride: Sequence[int], offset: int) -> np.ndarray | None:
    """i64[values of a row of the view]: where each stands in a row below; None where rows are not left as they are."""
    if not inputs.is_contiguous() or inputs.storage_offset():
        return None
    inner = int(_has_batch(size))
    if not all(isinstance(number, int) for number in (*size[inner:], *stride, offset)):
        return None
    places = np.full((), offset)
    for count, step in zip(size[inner:], stride[inner:], strict=True):
        places = places[..., None] + step * np.arange(count)
    end = stride[0] if inner else inputs.numel()
    return places.ravel() if not places.size or places.max() < end else None
