"""Points: the outputs of submodules, at which a forward pass is cut. The pass itself stays whole.

A block is run by running all of the module up to its last point, with what its first point gives replaced and what its
last point gives caught. So whatever else a pass keeps count of, such as the numbers that dropout draws, is as in the
whole model; what stands in front of the block reaches no output of the block's graph, and falls out of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def caught(
    module: nn.Module, point: str, replacement: Callable[[Tensor], Tensor] | None = None
) -> Iterator[list[Tensor]]:
    """What the submodule `point` gives in the block, one entry for each time that it runs; each entry and what the
    pass goes on with is `replacement` of it, where there is one.
    """
    outputs: list[Tensor] = []

    def catch(_part: nn.Module, _arguments: object, output: Tensor) -> Tensor:
        outputs.append(output if replacement is None else replacement(output))
        return outputs[-1]

    with _hooked(module.get_submodule(point).register_forward_hook(catch)):
        yield outputs


@contextmanager
def caught_alone(module: nn.Module, point: str, runs: int) -> Iterator[list[Tensor]]:
    """As `caught`, of a point that runs so many times; the pass, which the block is, ends with the last of them."""
    outputs: list[Tensor] = []

    def catch(_part: nn.Module, _arguments: object, output: Tensor) -> None:
        outputs.append(output)
        if len(outputs) == runs:
            raise _PassedError

    with _hooked(module.get_submodule(point).register_forward_hook(catch)), suppress(_PassedError):
        yield outputs


class _PassedError(BaseException):
    """Nothing that a model may take for an error of its own."""


@contextmanager
def given(module: nn.Module, point: str, activations: Tensor, runs: int) -> Iterator[None]:
    """In the block, the submodule `point` gives `activations` as `joined_runs` has them, whatever it makes itself."""
    values = iter([activations] if runs == 1 else activations.unbind(1))

    def give(*_: object) -> Tensor:
        return next(values)

    with _hooked(module.get_submodule(point).register_forward_hook(give)):
        yield


def joined_runs(outputs: list[Tensor]) -> Tensor:
    """What a point gives in one pass, f32[N, *shape]; of one that runs several times f32[N, runs, *shape]."""
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs, dim=1)


@contextmanager
def _hooked(hook: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()
