"""What of a forward pass runs in which block: found in one trace of it.

A value is computed in the last block that it can be: the first of those that need it. What a point gives is for the
block behind it, and for no other. So a value that two blocks need, and that is no point between them, goes around that
point, and a parameter that two blocks need is tied. What follows from samples alone may be computed twice.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from workbench.export.blocks.points import caught
from workbench.export.conversion.tracing import BATCH, GraphInput, trace
from workbench.export.graphs.gradients import losses_and_outputs
from workbench.export.graphs.training_graph import label_input
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.heads import Batch
from workbench.export.recipe.recipe import Recipe

_ATEN = torch.ops.aten
SHAPED_ALIKE = frozenset(
    {
        _ATEN.empty_like.default,
        _ATEN.full_like.default,
        _ATEN.new_empty.default,
        _ATEN.new_full.default,
        _ATEN.new_ones.default,
        _ATEN.new_zeros.default,
        _ATEN.ones_like.default,
        _ATEN.zeros_like.default,
    }
)
"""Operators that take a tensor for its shape."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A value that block `source` makes and block `target` takes, and a parameter that it follows from, if any."""

    source: int
    target: int
    made_with: str


@dataclass(frozen=True, slots=True)
class Dataflow:
    """`needed_by` are the blocks that take each parameter and buffer, `read_samples` those that read the device's
    samples, `build_on` those that read what the block in front of them gives. `crossings` are what should not be: all
    values that pass from one block to another other than at the point between them.
    """

    needed_by: Mapping[str, frozenset[int]]
    read_samples: frozenset[int]
    build_on: frozenset[int]
    crossings: tuple[Crossing, ...]

    def block_of(self, parameter: str, otherwise: int) -> int:
        """The first block that takes a parameter or buffer. One that none takes goes with others of its layer: a step
        may write what it never reads, as it does a vector of spectral normalisation. `otherwise`, where there are none.
        """
        if blocks := self.needed_by.get(parameter):
            return min(blocks)
        layer = parameter
        while layer := layer.rpartition(".")[0]:
            if beside := [blocks for name, blocks in self.needed_by.items() if name.startswith(f"{layer}.")]:
                return min(map(min, beside))
        return otherwise


def flow_of(recipe: Recipe, points: Sequence[str]) -> Dataflow:
    """The flow of a step's forward pass through the blocks that end at `points`, each of which runs at least once.

    Raises:
        UnexportableError, RuntimeError or a relative: the pass can't be traced.
    """
    recipe.set_training(True)
    names = [parameter.name for parameter in recipe.parameters]
    entries = [GraphInput(parameter.name, tuple(parameter.shape)) for parameter in recipe.parameters]
    entries += [GraphInput("inputs", (BATCH, *recipe.task.input.shape)), *label_input(recipe, BATCH)]
    entries += [GraphInput("row_weights", (BATCH,)), GraphInput("seed", (), torch.int64)]
    given = [entry.name for entry in entries]
    runs: list[int] = []

    def forward(*tensors: Tensor) -> list[Tensor]:
        named = dict(zip(given, tensors, strict=True))
        context = LayerContext(named["row_weights"], named["seed"])
        batch = Batch(named["inputs"], named.get("labels"), (named["row_weights"] > 0).to(torch.float32), {})
        with ExitStack() as stack:
            # A copy, so that what goes through a point that changes nothing can be told from what goes around it.
            marked = [stack.enter_context(caught(recipe.module, point, Tensor.clone)) for point in points]
            losses, _ = losses_and_outputs(recipe, {name: named[name] for name in names}, batch, context)
        runs[:] = [len(outputs) for outputs in marked]
        return [*(output for outputs in marked for output in outputs), losses, *context.updated.values()]

    graph = trace(forward, entries).graph
    placeholders = dict(zip(given, (node for node in graph.nodes if node.op == "placeholder"), strict=True))
    return _Flow(graph, runs, placeholders["inputs"], {placeholders[name]: name for name in names}).found()


class _Flow:
    """The operators of a trace, and the block of each that follows from samples."""

    def __init__(
        self, graph: fx.Graph, runs: Sequence[int], samples: fx.Node, parameters: Mapping[fx.Node, str]
    ) -> None:
        """The graph gives what each point gave, `runs` values of each, then the losses, then new buffers."""
        results: tuple[fx.Node, ...] = tuple(graph.output_node().args[0])  # type: ignore[arg-type] # what forward() gives
        ends = [point for point, count in enumerate(runs) for _ in range(count)]
        self._samples = samples
        self._points = dict(zip(results, ends, strict=False))
        self._nodes = [node for node in graph.nodes if node.op == "call_function"]
        self._made_with: dict[fx.Node, frozenset[str]] = {node: frozenset([name]) for node, name in parameters.items()}
        self._varying = {samples}
        self._behind_points: set[fx.Node] = set()
        for node in self._nodes:
            self._trace_back(node)
        self._blocks = self._assigned(results[len(ends)], len(runs))

    def found(self) -> Dataflow:
        """What passes between the blocks."""
        needed_by: dict[str, set[int]] = {}
        read_samples, build_on = {0}, set[int]()
        crossings = []
        for node, block in self._blocks.items():
            for taken in node.all_input_nodes:
                if taken not in self._varying:
                    for name in self._made_with.get(taken, ()):
                        needed_by.setdefault(name, set()).add(block)
                elif self._follows_from_samples_alone(taken):
                    if taken is self._samples or self._blocks[taken] != block:
                        read_samples.add(block)
                elif self._points.get(taken) == block - 1:
                    build_on.add(block)
                elif block not in (self._available_in(taken), self._points.get(taken)):
                    made_with = min(self._made_with[taken], default="")
                    crossings.append(Crossing(self._available_in(taken), block, made_with))
        frozen = {name: frozenset(blocks) for name, blocks in needed_by.items()}
        return Dataflow(frozen, frozenset(read_samples), frozenset(build_on), tuple(crossings))

    def _trace_back(self, node: fx.Node) -> None:
        """Note what an operator follows from, beside the sizes of things; those in front of it are noted."""
        is_size = isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)
        if is_size or node.target in SHAPED_ALIKE:
            return
        taken = node.all_input_nodes
        self._made_with[node] = frozenset[str]().union(*(self._made_with.get(each, ()) for each in taken))
        if any(each in self._points or each in self._behind_points for each in taken):
            self._behind_points.add(node)
        if any(each in self._varying for each in taken):
            self._varying.add(node)

    def _assigned(self, losses: fx.Node, last: int) -> dict[fx.Node, int]:
        """The block of each operator; in the end those that give new buffers alone, which follow what they are of."""
        blocks: dict[fx.Node, int] = {}
        nodes = [node for node in self._nodes if node in self._varying]
        for node in reversed(nodes):
            needed_in = [blocks[user] for user in node.users if user in blocks] + [last] * (node is losses)
            if node in self._points or needed_in:
                blocks[node] = self._points[node] if node in self._points else min(needed_in)
        self._blocks = blocks
        for node in nodes:
            if node not in blocks:
                varying = [each for each in node.all_input_nodes if each in blocks]
                blocks[node] = max(map(self._available_in, varying), default=0)
        return blocks

    def _available_in(self, node: fx.Node) -> int:
        """The only block that may take what an operator gives."""
        return self._points[node] + 1 if node in self._points else self._blocks[node]

    def _follows_from_samples_alone(self, node: fx.Node) -> bool:
        return not self._made_with.get(node) and node not in self._points and node not in self._behind_points
