"""Scaling inside the graphs: nodes before and behind what the model computes.

A graph takes raw values and gives raw predictions; the scale comes in as inputs of its own, so that the same graphs
serve before and after the fleet has one. A value that is missing becomes the mean. One that is further from the mean
than `MOST_DEVIATIONS` counts as being that far: no reading, however wrong, makes a round overflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from bundle_runtime.scale_feeds import SCALE_INPUTS
from fleet_protocol.sample_schema import qualified
from fleet_protocol.scaling import MOST_DEVIATIONS, Block, columns_of, input_blocks, target_blocks
from workbench.export.graphs.graph_constants import add_constant
from workbench.export.recipe.recipe import Recipe

_SCALED: Final = ".scaled"


@dataclass(frozen=True, slots=True)
class _Scaled:
    """The graph's `value`, the names of the inputs that hold its scale, float32 [columns] each, and how many there are.

    `column_of` says which column each value of a row has, -1 for none; None where the row and its columns broadcast.
    """

    value: str
    mean: str
    deviation: str
    columns: int
    column_of: tuple[int, ...] | None = None
    may_lack: bool = False


def model_side(recipe: Recipe, value: str) -> str:
    """What the model's side of a graph calls `value`, which is `inputs`, `labels` or a head's scores."""
    return f"{value}{_SCALED}" if value in _scaled_values(recipe) else value


def scale_values(graph: GraphProto, recipe: Recipe, values: Sequence[str]) -> None:
    """Let `graph`, which computes on the model's side of `values`, take them raw. Its nodes follow those added here.

    An input of the graph by the name of a model's side gets the raw name.
    """
    nodes: list[NodeProto] = []
    for value in values:
        if (scaled := _scaled_values(recipe).get(value)) is None:
            continue
        for entry in graph.input:
            entry.name = value if entry.name == f"{value}{_SCALED}" else entry.name
        _take_scale(graph, scaled)
        nodes += _standardise(graph, scaled)
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)


def unscale_scores(graph: GraphProto, recipe: Recipe) -> None:
    """Let `graph`, which computes the model's side of scores, give them in the unit of what they are compared with."""
    scaled_values = _scaled_values(recipe)
    for output in graph.output:
        value = output.name.removesuffix(_SCALED)
        if (scaled := scaled_values.get(value)) is None:
            continue
        _take_scale(graph, scaled)
        output.name = value
        mean, deviation = _scale_of_scores(graph, scaled, rank=len(output.type.tensor_type.shape.dim))
        graph.node.extend(
            [
                helper.make_node("Mul", [f"{value}{_SCALED}", deviation], [f"{value}.spread"]),
                helper.make_node("Add", [f"{value}.spread", mean], [value]),
            ]
        )


def _scaled_values(recipe: Recipe) -> dict[str, _Scaled]:
    """By the name in the graph, what the task scales. A task that gives back its inputs gives them in their unit."""
    scaling, task = recipe.scaling, recipe.task
    found = []
    if scaling.inputs is not None:
        names, columns = SCALE_INPUTS["inputs"], len(scaling.inputs.mean)
        column_of = _column_of(input_blocks(task.each_input), task.input.size)
        found.append(_Scaled("inputs", *names, columns, column_of, task.input.missing == "mean"))
        found += [
            _Scaled(qualified("scores", head.name), *names, columns)
            for head in recipe.objective.heads
            if head.label.kind == "reconstruction"
        ]
    if scaling.targets is not None:
        names, columns = SCALE_INPUTS["targets"], len(scaling.targets.mean)
        column_of = _column_of(target_blocks(task.each_label), task.label.size)
        found.append(_Scaled("labels", *names, columns, column_of))
        start = 0
        for head in recipe.objective.heads:
            if head.label.kind == "regression":
                own = tuple(range(start, start + head.label.values))
                found.append(_Scaled(qualified("scores", head.name), *names, columns, own))
                start += head.label.values
    return {each.value: each for each in found}


def _column_of(blocks: Sequence[Block], size: int) -> tuple[int, ...] | None:
    if columns_of(blocks) == size or (len(blocks) == 1 and blocks[0].size == size):
        return None
    column_of, first = np.full(size, -1), 0
    for block in blocks:
        column_of[block.place] = first + (np.arange(block.size) if block.columns > 1 else 0)
        first += block.columns
    return tuple(column_of.tolist())


def _take_scale(graph: GraphProto, scaled: _Scaled) -> None:
    known = {entry.name for entry in graph.input}
    for name in (scaled.mean, scaled.deviation):
        if name not in known:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [scaled.columns]))


def _scale_of_scores(graph: GraphProto, scaled: _Scaled, *, rank: int) -> tuple[str, str]:
    """The names of mean and deviation of a head's scores, in a shape that goes with [N, columns, ...]."""
    own = scaled.column_of
    if own is None or (len(own) == scaled.columns and rank <= 2):
        return scaled.mean, scaled.deviation
    names = []
    add_constant(graph, f"{scaled.value}.columns", np.array(own).reshape(-1, *[1] * (rank - 2)))
    for given in (scaled.mean, scaled.deviation):
        names.append(f"{scaled.value}.{given}")
        graph.node.append(helper.make_node("Gather", [given, f"{scaled.value}.columns"], [names[-1]]))
    return names[0], names[1]


def _standardise(graph: GraphProto, scaled: _Scaled) -> list[NodeProto]:
    value = scaled.value
    bounds = {f"{value}.least": -MOST_DEVIATIONS, f"{value}.most": MOST_DEVIATIONS}
    graph.initializer.extend(numpy_helper.from_array(np.array(at, np.float32), name) for name, at in bounds.items())
    nodes, mean, deviation = _scale_of_row(graph, scaled)
    given = value
    if scaled.may_lack:
        given = f"{value}.filled"
        nodes += [
            helper.make_node("IsNaN", [value], [f"{value}.lacks"]),
            helper.make_node("Where", [f"{value}.lacks", mean, value], [given]),
        ]
    is_partial = scaled.column_of is not None and -1 in scaled.column_of
    standard = f"{value}.standard" if is_partial else f"{value}{_SCALED}"
    nodes += [
        helper.make_node("Sub", [given, mean], [f"{value}.centred"]),
        helper.make_node("Div", [f"{value}.centred", deviation], [f"{value}.unbounded"]),
        helper.make_node("Clip", [f"{value}.unbounded", *bounds], [standard]),
    ]
    if is_partial:
        add_constant(graph, f"{value}.has_scale", np.array(scaled.column_of) >= 0)
        nodes.append(helper.make_node("Where", [f"{value}.has_scale", standard, given], [f"{value}{_SCALED}"]))
    return nodes


def _scale_of_row(graph: GraphProto, scaled: _Scaled) -> tuple[list[NodeProto], str, str]:
    """Nodes that spread the columns over a row, and the names of the mean and deviation that go with one."""
    if scaled.column_of is None:
        return [], scaled.mean, scaled.deviation
    value = scaled.value
    # A value without a scale takes any column: what comes of it is not used.
    add_constant(graph, f"{value}.columns", np.maximum(scaled.column_of, 0))
    mean, deviation = f"{value}.means", f"{value}.deviations"
    nodes = [
        helper.make_node("Gather", [scaled.mean, f"{value}.columns"], [mean]),
        helper.make_node("Gather", [scaled.deviation, f"{value}.columns"], [deviation]),
    ]
    return nodes, mean, deviation
