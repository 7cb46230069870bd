"""What torch itself makes of a graph's inputs, and how much of it is rounding.

The function that became a graph runs once more, on torch's own layers and autograd: in double precision, which stands
for the exact result, and in float32, once as it is and then with inputs that are off by half a unit in the last place.
How far those are from the exact result is what rounding explains.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from workbench.export.layers.exportable_layers import torchs_own_layers

HALF_UNIT = 2.0**-24
"""Relative size of float32's rounding."""
OTHER_ORDER = 16
"""How many times as much as torch's another order of the same sums, or another formula, may round."""
FEW_RUNS, MANY_RUNS = 2, 12
"""Of nudged inputs: at first, and where those did not explain a difference. A step over a kink, such as ReLU's, that
happens in half of all runs is missed by so many once in 4096 times."""

Function = Callable[..., tuple[Tensor, ...]]
Double = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """The results of a function, exact, and for each how far rounding may take float32 from it, as a whole."""

    exact: list[Double]
    rounding: list[float]

    def tolerance(self, place: int) -> float:
        """For every value of this result."""
        return OTHER_ORDER * max(self.rounding[place], HALF_UNIT * _largest(self.exact[place]))


def reference(function: Function, inputs: Sequence[Tensor], runs: int) -> Reference:
    """What torch gives for these inputs.

    Raises:
        RuntimeError or a relative: whatever torch raises where it can't run the model.
    """
    generator = torch.Generator().manual_seed(runs)
    with torchs_own_layers():
        rounded = [_run(function, inputs)]
        rounded += [_run(function, [_nudged(tensor, generator) for tensor in inputs]) for _ in range(runs)]
        exact = _exact(function, inputs)
    rounding = [max(_distance(run[place], value) for run in rounded) for place, value in enumerate(exact)]
    return Reference(exact, rounding)


class _DoublePrecision(TorchFunctionMode):
    """Inside of the block, whatever is float32 is computed in float64."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if function is Tensor.float:
            function = Tensor.double
        if function in _AS_THEY_ARE:
            return function(*args, **(kwargs or {}))
        args, named = pytree.tree_map(_widened, (args, kwargs or {}))
        return function(*args, **named)


_AS_THEY_ARE = frozenset({Tensor.double})


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _widened(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype == torch.float32:
        return value.double()
    return torch.float64 if value is torch.float32 else value


def _exact(function: Function, inputs: Sequence[Tensor]) -> list[Double]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _DoublePrecision():
            return _run(function, [_double(tensor) for tensor in inputs])
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a model that insists on float32
        torch.set_default_dtype(usual)
        return _run(function, inputs)
    finally:
        torch.set_default_dtype(usual)


def _run(function: Function, inputs: Sequence[Tensor]) -> list[Double]:
    return [result.detach().to(torch.float64).numpy() for result in function(*inputs)]


def _nudged(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point() or not tensor.dim():
        return tensor
    signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
    whole = tensor == tensor.round()  # they may be indices
    return torch.where(whole, tensor, tensor * (1 + 2 * HALF_UNIT * signs))


def _distance(rounded: Double, exact: Double) -> float:
    """The largest difference; infinite where float32 overflows and float64 does not."""
    overflows = bool((np.isfinite(exact) & ~np.isfinite(rounded)).any())
    return math.inf if overflows else _largest(rounded - exact)


def _largest(values: Double) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0
