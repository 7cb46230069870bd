"""A step repeated over a sequence: a loop in torch, and one `Scan` in a graph, whatever the sequence's length."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload

Tensors = Sequence[Tensor]
Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""States, an entry of each sequence, and what stays the same, to the new states and an entry of each output.

Every tensor but those that stay the same has the rows of the batch as its last axis."""

STEPS: dict[str, Step] = {}
"""Every step that can be repeated, by its name."""


def repeatable(step: Step) -> Step:
    """Enter a step into `STEPS` under its own name."""
    STEPS[step.__name__] = step
    return step


def repeat(
    step: Step, states: Tensors, sequences: Tensors, fixed: Tensors, *, backwards: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """The last states, and each output over the sequence [T, ...]; `backwards` begins with the last entry.

    Nothing is differentiated through it.
    """
    with torch.no_grad():
        results = _repeat(step.__name__, list(states), list(sequences), list(fixed), backwards)
    return results[: len(states)], results[len(states) :]


@torch.library.custom_op("edgeflock::repeat", mutates_args=())
def _repeat(
    step: str, states: list[Tensor], sequences: list[Tensor], fixed: list[Tensor], backwards: bool
) -> list[Tensor]:
    carried: Tensors = states
    outputs = []
    numbers = range(sequences[0].shape[0])
    for number in reversed(numbers) if backwards else numbers:
        carried, made = STEPS[step](carried, [sequence[number] for sequence in sequences], fixed)
        outputs.append(made)
    ordered = outputs[::-1] if backwards else outputs
    return [*carried, *(torch.stack(list(entries)) for entries in zip(*ordered, strict=True))]


@_repeat.register_fake
def _shapes(
    step: str, states: list[Tensor], sequences: list[Tensor], fixed: list[Tensor], backwards: bool
) -> list[Tensor]:
    carried, made = STEPS[step](states, [sequence[0] for sequence in sequences], fixed)
    steps = sequences[0].shape[0]
    return [*map(torch.empty_like, carried), *(entry.new_empty((steps, *entry.shape)) for entry in made)]


@_repeat.register_vmap
def _rows_of_rows(  # noqa: PLR0917 - the operator's own signature
    info: object,
    in_dims: tuple[object, list[int | None], list[int | None], list[int | None], object],
    step: str,
    states: list[Tensor],
    sequences: list[Tensor],
    fixed: list[Tensor],
    backwards: bool,
) -> tuple[list[Tensor], list[int]]:
    """Rows are independent of one another, so that what is mapped over becomes more of them."""
    if any(axis is not None for axis in in_dims[3]):
        raise NotImplementedError("a recurrent layer whose weights differ from row to row")
    size = info.batch_size  # type: ignore[attr-defined] # torch keeps its class to itself
    results = _repeat(
        step,
        [_merged(tensor, axis, size) for tensor, axis in zip(states, in_dims[1], strict=True)],
        [_merged(tensor, axis, size) for tensor, axis in zip(sequences, in_dims[2], strict=True)],
        fixed,
        backwards,
    )
    return [result.unflatten(-1, (-1, size)) for result in results], [result.dim() for result in results]


def _merged(tensor: Tensor, axis: int | None, size: int) -> Tensor:
    """With the mapped axis of this size as the inner part of the last one."""
    moved = tensor.unsqueeze(-1).expand(*tensor.shape, size) if axis is None else tensor.movedim(axis, -1)
    return moved.flatten(-2)


REPEAT: OpOverload = torch.ops.edgeflock.repeat.default
"""What a traced graph calls."""
