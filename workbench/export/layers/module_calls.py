"""What each submodule is given and gives in one run of a model, and the first that breaks from another run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext

SEED = 5


@dataclass(frozen=True, slots=True)
class Call:
    """The float tensors of one call of a submodule."""

    given: list[Tensor]
    gave: list[Tensor]


@torch.no_grad()
def module_calls(module: nn.Module, inputs: Tensor) -> dict[str, Call]:
    """Name of each submodule to its first call, in the order in which they end, for inputs f32[B, *shape].

    The model draws the same every time and changes no buffer.
    """
    calls: dict[str, Call] = {}

    def note(name: str) -> Callable[..., None]:
        def ended(_: nn.Module, positional: object, named: object, result: object) -> None:
            calls.setdefault(name, Call(floats((positional, named)), floats(result)))

        return ended

    hooks = [part.register_forward_hook(note(name), with_kwargs=True) for name, part in module.named_modules()]
    rows = torch.full(inputs.shape[:1], 1 / len(inputs))
    try:
        with exportable_layers(module, LayerContext(rows, torch.tensor(SEED))):
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def first_apart(one: dict[str, Call], other: dict[str, Call], agree: Callable[[Tensor, Tensor], bool]) -> str | None:
    """The submodule that ends first of those that are given the same and give something else."""

    def alike(these: list[Tensor], those: list[Tensor]) -> bool:
        return len(these) == len(those) and all(map(agree, these, those))

    for name, call in one.items():
        again = other.get(name)
        if again is not None and alike(call.given, again.given) and not alike(call.gave, again.gave):
            return name
    return None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode in the block; each submodule has its own mode again behind it."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def floats(values: object) -> list[Tensor]:
    """The floating-point tensors in a nested value."""
    return [leaf for leaf in pytree.tree_leaves(values) if is_float(leaf)]


def is_float(value: object) -> bool:
    """Whether it is a floating-point tensor."""
    return isinstance(value, Tensor) and value.is_floating_point()


def described(module: nn.Module, name: str) -> str:
    """A submodule, for people."""
    kind = type(module.get_submodule(name)).__name__
    return f"module {name!r} ({kind})" if name else f"the model itself ({kind})"
