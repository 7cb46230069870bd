"""Padding that repeats what it pads, as slices put side by side: torch's own gathers, and has no gradient in ONNX."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Border = Callable[[Tensor, int, int], Tensor]
"""From a tensor, an axis and a width to what stands before or behind it along this axis."""


def _reflected_before(inputs: Tensor, axis: int, width: int) -> Tensor:
    return inputs.narrow(axis, 1, width).flip(axis)


def _reflected_behind(inputs: Tensor, axis: int, width: int) -> Tensor:
    return inputs.narrow(axis, inputs.shape[axis] - 1 - width, width).flip(axis)


def _first(inputs: Tensor, axis: int, width: int) -> Tensor:
    return _repeated(inputs.narrow(axis, 0, 1), axis, width)


def _last(inputs: Tensor, axis: int, width: int) -> Tensor:
    return _repeated(inputs.narrow(axis, inputs.shape[axis] - 1, 1), axis, width)


def _end(inputs: Tensor, axis: int, width: int) -> Tensor:
    return inputs.narrow(axis, inputs.shape[axis] - width, width)


def _beginning(inputs: Tensor, axis: int, width: int) -> Tensor:
    return inputs.narrow(axis, 0, width)


def _repeated(slice_of_one: Tensor, axis: int, width: int) -> Tensor:
    return torch.cat([slice_of_one] * width, dim=axis)


BORDERS: dict[str, tuple[Border, Border]] = {
    "reflect": (_reflected_before, _reflected_behind),
    "replicate": (_first, _last),
    "circular": (_end, _beginning),
}
"""Mode of `functional.pad` to what it puts before and behind."""


def pad(original: Callable[..., Tensor], inputs: Tensor, widths: Sequence[int], mode: str, value: object) -> Tensor:
    """`functional.pad`: pairs of widths, the last axis first. `original` serves constants and cropping."""
    if mode not in BORDERS or min(widths) < 0:
        return original(inputs, widths, mode, value)
    before, behind = BORDERS[mode]
    for place, (low, high) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        axis = inputs.dim() - 1 - place
        parts = [before(inputs, axis, low)] * (low > 0) + [inputs] + [behind(inputs, axis, high)] * (high > 0)
        inputs = torch.cat(parts, dim=axis) if len(parts) > 1 else inputs
    return inputs
