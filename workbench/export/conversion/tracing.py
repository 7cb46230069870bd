"""A torch function as a graph of core operators, with the batch size left free."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from workbench.export.conversion.decompositions import OF_VALUES, Decomposition, decomposition_table
from workbench.export.conversion.diagnosis import FREE_BATCH
from workbench.export.layers.layer_context import UnexportableError
from workbench.export.layers.seeded_noise import REMEDY

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
        UnexportableError: something is computed in bfloat16, or for one number of rows alone.
        RuntimeError or a relative: whatever torch raises where the function can't be traced.
        UnexportableError: it draws random numbers in a way that no seed reaches.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    mode.cache_enabled = False  # of what it remembers, a trace asks for too little again to be worth remembering it
    examples = [
        mode.from_tensor(
            entry.example(),
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.DYNAMIC if size is BATCH else DimDynamic.STATIC for size in entry.shape]
            ),
        )
        for entry in inputs
    ]
    graph = _make_graph(function, examples)
    _check_seeded(graph.graph)
    if any(_is_fixed(example) for example in examples):
        raise UnexportableError(*FREE_BATCH)
    if any(_changes_in_place(node) for node in graph.graph.nodes):
        graph = _make_graph(functionalize(graph), examples)
    if any(node.target in OF_VALUES for node in graph.graph.nodes):
        graph = _make_graph(graph, examples, OF_VALUES)
    _multiply_sizes(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    if torch.bfloat16 in dtypes_of(graph):
        raise UnexportableError("it computes in bfloat16, for which devices have no operators", "compute in float32")
    return graph


def _is_fixed(example: Tensor) -> bool:
    """Whether tracing has taken the number of rows of an example for the only one there will be."""
    return any(isinstance(size, torch.SymInt) and size.node.maybe_as_int() is not None for size in example.shape)


def dtypes_of(graph: fx.GraphModule) -> set[torch.dtype]:
    """Of everything that the graph computes."""
    values = (node.meta.get("val") for node in graph.graph.nodes)
    return {value.dtype for value in values if isinstance(value, Tensor)}


def _make_graph(
    function: Callable[..., object],
    examples: Sequence[Tensor],
    more: Mapping[OpOverload, Decomposition] = MappingProxyType({}),
) -> fx.GraphModule:
    table = {**decomposition_table(), **more}
    graph: fx.GraphModule = make_fx(function, decomposition_table=table, tracing_mode="symbolic")(*examples)
    return graph


def _changes_in_place(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _check_seeded(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags and node.users:
            raise UnexportableError(f"it draws random numbers with {node.target}, which no seed reaches", REMEDY)


def _multiply_sizes(graph: fx.Graph) -> None:
    """Write each number of elements as a product of sizes; ONNX has no other way to it."""
    for node in [node for node in graph.nodes if node.target is torch.ops.aten.sym_numel.default]:
        (tensor,) = node.args
        sizes = tensor.meta["val"].shape
        product: fx.Node | int = prod(size for size in sizes if isinstance(size, int))
        with graph.inserting_before(node):
            for axis, size in enumerate(sizes):
                if not isinstance(size, int):
                    factor = graph.call_function(torch.ops.aten.sym_size.int, (tensor, axis))
                    factor.meta["val"] = size
                    product = graph.call_function(operator.mul, (factor, product))
                    product.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(product)
        graph.erase_node(node)
