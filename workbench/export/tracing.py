"""A torch function as a graph of core operators, with the batch size left free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from workbench.export.decompositions import decomposition_table

BATCH = None
"""Stands in a shape for the axis whose length is free at run time."""

EXAMPLE_BATCH = 7
"""Rows of an example. Any number above 1 does: torch treats 0 and 1 as special cases."""


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One named input of a graph. At most the first axis is `BATCH`."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32

    def example(self) -> Tensor:
        """Ones of this shape and dtype, with `EXAMPLE_BATCH` rows."""
        return torch.ones([EXAMPLE_BATCH if size is BATCH else size for size in self.shape], dtype=self.dtype)


def trace(function: Callable[..., object], inputs: Sequence[GraphInput]) -> fx.GraphModule:
    """Trace `function` on tensors without data; the graph holds only operators that the decompositions leave.

    Raises:
        RuntimeError or a relative: whatever torch raises where the function can't be traced.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    examples = [
        mode.from_tensor(
            entry.example(),
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.DYNAMIC if size is BATCH else DimDynamic.STATIC for size in entry.shape]
            ),
        )
        for entry in inputs
    ]
    graph = make_fx(function, decomposition_table=decomposition_table(), tracing_mode="symbolic")(*examples)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
