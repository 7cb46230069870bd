"""Finds the submodule whose exported form computes something else than torch. Only called when an export has failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.utils import _pytree as pytree

from workbench.export.conversion.onnx_conversion import checked_model, convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext
from workbench.export.layers.module_calls import (
    SEED,
    described,
    evaluating,
    first_apart,
    floats,
    is_float,
    module_calls,
)
from workbench.export.trials.compared_steps import session_of
from workbench.export.trials.torch_reference import FEW_RUNS, reference

ALONE = 3
"""Rows that are compared with the same rows among others."""
MIXED = 1e-4
"""Of the largest value: rounding is far below it."""
REPORTED = "replace it in model.py by layers that are exported as they are, and report it"


def differing_module(module: nn.Module, inputs: Tensor) -> tuple[str, str]:
    """A sentence about the submodule at fault for inputs f32[B, *shape], and one with a remedy."""
    if (name := _mixing_module(module, inputs)) is not None:
        return (
            f"{described(module, name)} mixes the samples of a batch: a sample's result changes with those beside it",
            "compute it for each sample by itself (axis 0 is the batch; recurrent layers need batch_first=True)",
        )
    try:
        names, found, expected, tolerances = _compared(module, inputs)
    except Exception:  # in any way that an export can
        return f"no layer of {described(module, '')} can be compared by itself", REPORTED
    for place, (ours, exact, tolerance) in enumerate(zip(found, expected, tolerances, strict=True)):
        if ours.shape == exact.shape and np.abs(ours - exact).max(initial=0.0) <= tolerance:
            continue
        back = place > len(names) // 2  # a gradient is wrong behind the layer that it has just come through
        part = f"the gradient of {described(module, names[place - 1])}" if back else described(module, names[place])
        return f"{part} is exported as something else", REPORTED
    return (
        "each layer by itself is exported as it is, so its parameters' gradients or the loss are at fault",
        "compute the gradient for each sample by itself (no scale_grad_by_freq), or report it",
    )


def _mixing_module(module: nn.Module, inputs: Tensor) -> str | None:
    """The first submodule that gives the last rows something else when others stand before them."""
    with evaluating(module):
        together, alone = [module_calls(module, rows) for rows in (inputs, inputs[-ALONE:])]
    return first_apart(alone, together, _same_last_rows)


def _same_last_rows(alone: Tensor, together: Tensor) -> bool:
    """Whether the last rows of `together` are those of `alone`, as far as can be seen."""
    if together.dim() != alone.dim():
        return True
    last = [slice(max(0, whole - size), None) for whole, size in zip(together.shape, alone.shape, strict=True)]
    rows = together[tuple(last)]
    if rows.shape != alone.shape or not rows.numel():
        return True
    return float((rows - alone).abs().max()) <= MIXED * float(alone.abs().max())


def _compared(module: nn.Module, inputs: Tensor) -> tuple[list[str], list[np.ndarray], list[np.ndarray], list[float]]:
    """Names of submodules in the order of their calls, then in reverse, with what flows through each and its gradient:
    by the exported form, by torch, and how much of their difference is rounding."""
    names: list[str] = []
    _forward(module, inputs, names)
    count = len(names)
    gains = torch.ones(count)
    weights = {name: value.detach() for name, value in module.named_parameters()}

    def both_ways(rows: Tensor, gain: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(weights, tensors, strict=True))

        def through(scales: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            return _forward(module, rows, [], scales, named)

        results, pull_back, inner = vjp(through, gain, has_aux=True)  # type: ignore[misc] # its number of results
        (gradient,) = pull_back([torch.ones_like(result) for result in results])
        return (*inner, *(gradient[place] for place in reversed(range(count))))

    given = [inputs, gains, *weights.values()]
    entries = [GraphInput("rows", (BATCH, *inputs.shape[1:])), GraphInput("gains", (count,))]
    entries += [GraphInput(f"weight_{number}", tuple(value.shape)) for number, value in enumerate(weights.values())]
    outputs = [f"forward_{place}" for place in range(count)] + [f"backward_{place}" for place in range(count)]
    expected = reference(both_ways, given, FEW_RUNS)
    model = checked_model(convert(both_ways, entries, outputs))
    session = session_of(model)
    taken = {entry.name for entry in session.get_inputs()}
    feeds = {entry.name: value.numpy() for entry, value in zip(entries, given, strict=True) if entry.name in taken}
    found = [value.astype(np.float64) for value in session.run(outputs, feeds)]
    return [*names, *reversed(names)], found, expected.exact, [expected.tolerance(at) for at in range(2 * count)]


def _forward(
    module: nn.Module,
    inputs: Tensor,
    names: list[str],
    gains: Tensor | None = None,
    tensors: dict[str, Tensor] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """What the module gives, and what each submodule does, times its gain; `names` are added in the order of calls."""
    inner: list[Tensor] = []

    def note(name: str, _place: int, value: Tensor) -> Tensor:
        scaled = value if gains is None else value * gains[len(inner)]
        names.append(name)
        inner.append(scaled)
        return scaled

    rows = torch.full((inputs.shape[0],), 1.0) / inputs.shape[0]
    context = LayerContext(rows, torch.tensor(SEED))
    with exportable_layers(module, context), _watched(module, note):
        result = functional_call(module, tensors or {}, (inputs,))
    return floats(result), inner


@contextmanager
def _watched(module: nn.Module, note: Callable[[str, int, Tensor], Tensor]) -> Iterator[None]:
    """Call `note` with each submodule's name and each float tensor that it gives; the answer takes its place."""

    def hook(name: str) -> Callable[..., object]:
        def seen(_part: object, _given: object, result: object) -> object:
            leaves, structure = pytree.tree_flatten(result)
            told = [note(name, at, leaf) if is_float(leaf) else leaf for at, leaf in enumerate(leaves)]
            return pytree.tree_unflatten(told, structure)

        return seen

    handles = [part.register_forward_hook(hook(name)) for name, part in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
