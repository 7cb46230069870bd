"""Explains what of which module prevents an export."""

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.func import functional_call, vjp
from torch.utils import _pytree as pytree

from fleet_protocol.errors import ConfigurationError
from workbench.export.conversion.diagnosis import Diagnosis, basename, diagnosis
from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import BATCH, EXAMPLE_BATCH, GraphInput, trace
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext, UnexportableError
from workbench.export.layers.module_calls import described

Arguments = tuple[tuple[object, ...], dict[str, object]]
"""Positional and named arguments of one call."""


@contextmanager
def explained(file: str, module: nn.Module, sample: Tensor) -> Iterator[None]:
    """Turn whatever torch raises while the block exports `module` to `file` into one sentence.

    `sample` f32[1, *shape] is one that the model takes.

    Raises:
        ConfigurationError: naming the file, the submodule at fault, what stands in the way, and what to do.
    """
    entered: list[str] = []
    hooks = _watch(module, entered)
    try:
        with redirect_stdout(io.StringIO()):  # what the model prints it has printed in its first run
            yield
    except ConfigurationError:  # says by itself what to do
        raise
    except Exception as error:
        for hook in hooks:
            hook.remove()
        found = diagnosis(error)
        if isinstance(error, UnexportableError) and error.place is not None:
            place = described(module, error.place)
        elif entered:
            place = described(module, entered[-1])
        else:
            place = place_of(found, module, sample)
        raise ConfigurationError(f"{file}: {place} can't be exported: {found}") from error
    finally:
        for hook in hooks:
            hook.remove()


def place_of(found: Diagnosis, module: nn.Module, sample: Tensor) -> str:
    """Name the innermost submodule whose forward and backward pass alone run into the same.

    Only called when an export has failed: it exports each submodule on the way by itself.
    """
    arguments = _arguments(module, sample)
    if not _fails_alike(found, module, arguments.get("")):
        return "the loss or the training step"
    name = ""
    while True:
        inner = (child for child in _called_children(module, name, arguments.keys()))
        culprit = next((child for child in inner if _is_culprit(found, module, child, arguments)), None)
        if culprit is None:
            return described(module, name)
        name = culprit


def _is_culprit(found: Diagnosis, module: nn.Module, name: str, arguments: dict[str, Arguments]) -> bool:
    return _fails_alike(found, module.get_submodule(name), arguments[name])


def _called_children(module: nn.Module, name: str, called: object) -> Iterator[str]:
    """The submodules of the named one that have run; those of a container that has not, such as a ModuleList."""
    for child, _ in module.get_submodule(name).named_children():
        full = f"{name}.{child}" if name else child
        if full in called:  # type: ignore[operator]
            yield full
        else:
            yield from _called_children(module, full, called)


def _watch(module: nn.Module, entered: list[str]) -> list[torch.utils.hooks.RemovableHandle]:
    """Keep in `entered` the submodules that execution is inside of. An exception leaves the culprit at the end."""

    def leave(*_: object) -> None:
        entered.pop()

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: entered.append(name)

    hooks = []
    for name, part in module.named_modules():
        hooks += [part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave)]
    return hooks


def _arguments(module: nn.Module, sample: Tensor) -> dict[str, Arguments]:
    """What each submodule is called with when the model sees a batch of the sample. An unused one is left out."""
    arguments: dict[str, Arguments] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _, positional, named: arguments.update({name: (positional, named)})

    hooks = [part.register_forward_pre_hook(note(name), with_kwargs=True) for name, part in module.named_modules()]
    with suppress(Exception), torch.no_grad(), exportable_layers(module, _context(EXAMPLE_BATCH)):
        module(sample.expand(EXAMPLE_BATCH, *sample.shape[1:]))
    for hook in hooks:
        hook.remove()
    return arguments


def _fails_alike(found: Diagnosis, part: nn.Module, arguments: Arguments | None) -> bool:
    """Whether `part` by itself, called with these arguments, can't be exported for the reason that was found."""
    if arguments is None:
        return False
    leaves, structure = pytree.tree_flatten(arguments)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    names = [name for name, _ in part.named_parameters()]

    def forward(*values: Tensor) -> list[Tensor]:
        given = iter(values[len(names) :])
        positional, named = pytree.tree_unflatten(
            [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure
        )
        with exportable_layers(part, _context(tensors[0].shape[0] if tensors else 1)):
            result = functional_call(part, dict(zip(names, values, strict=False)), positional, named)
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def forward_and_backward(*values: Tensor) -> tuple[Tensor, ...]:
        is_varied = [value.is_floating_point() for value in values]

        def of_varied(*varied: Tensor) -> list[Tensor]:
            given = iter(varied)
            return forward(*(next(given) if varies else value for varies, value in zip(is_varied, values, strict=True)))

        results, pull_back = vjp(of_varied, *itertools.compress(values, is_varied))[:2]
        return (*results, *pull_back([torch.ones_like(result) for result in results]))

    inputs = [_as_input(value) for value in (*part.parameters(), *tensors)]
    try:
        if found.operator is not None:
            nodes = trace(forward_and_backward, inputs).graph.nodes
            used = {basename(str(node.target)) for node in nodes if isinstance(node.target, OpOverload)}
            return basename(found.operator) in used
        convert(forward_and_backward, inputs, [])
    except Exception as error:
        return diagnosis(error).reason == found.reason
    return False


def _as_input(value: Tensor) -> GraphInput:
    """An argument; what has a batch's length first is a batch."""
    shape = tuple(value.shape)
    return GraphInput("", (BATCH, *shape[1:]) if shape[:1] == (EXAMPLE_BATCH,) else shape, value.dtype)


def _context(rows: int) -> LayerContext:
    return LayerContext(torch.full((rows,), 1 / rows), torch.tensor(0))
