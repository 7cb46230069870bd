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
from fleet_protocol.scaling import MOST_DEVIATIONS
from workbench.export.recipe import Recipe

_SCALED: Final = ".scaled"


@dataclass(frozen=True, slots=True)
class _Scaled:
    """The graph's `value` and the names of the inputs that hold its scale, float32 [columns] each."""

    value: str
    mean: str
    deviation: str
    columns: int
    may_lack: bool = False


def model_side(recipe: Recipe, value: str) -> str:
    """What the model's side of a graph calls `value`, which is `inputs`, `labels` or `scores`."""
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
    """Let `graph`, which computes the model's side of `scores`, give them in the unit of the targets."""
    if (scaled := _scaled_values(recipe).get("scores")) is None:
        return
    _take_scale(graph, scaled)
    (output,) = graph.output
    output.name = "scores"
    graph.node.extend(
        [
            helper.make_node("Mul", [f"scores{_SCALED}", scaled.deviation], ["scores.spread"]),
            helper.make_node("Add", ["scores.spread", scaled.mean], ["scores"]),
        ]
    )


def _scaled_values(recipe: Recipe) -> dict[str, _Scaled]:
    """By the name in the graph, what the task scales. A task that gives back its inputs gives them in their unit."""
    scaling, kind = recipe.scaling, recipe.task.label.kind
    found = []
    if scaling.inputs is not None:
        names, columns = SCALE_INPUTS["inputs"], len(scaling.inputs.mean)
        found.append(_Scaled("inputs", *names, columns, recipe.task.input.missing == "mean"))
        if kind == "reconstruction":
            found.append(_Scaled("scores", *names, columns))
    if scaling.targets is not None:
        names, columns = SCALE_INPUTS["targets"], len(scaling.targets.mean)
        found += [_Scaled("labels", *names, columns), _Scaled("scores", *names, columns)]
    return {each.value: each for each in found}


def _take_scale(graph: GraphProto, scaled: _Scaled) -> None:
    known = {entry.name for entry in graph.input}
    for name in (scaled.mean, scaled.deviation):
        if name not in known:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [scaled.columns]))


def _standardise(graph: GraphProto, scaled: _Scaled) -> list[NodeProto]:
    value = scaled.value
    bounds = {f"{value}.least": -MOST_DEVIATIONS, f"{value}.most": MOST_DEVIATIONS}
    graph.initializer.extend(numpy_helper.from_array(np.array(at, np.float32), name) for name, at in bounds.items())
    given = value
    nodes = []
    if scaled.may_lack:
        given = f"{value}.filled"
        nodes += [
            helper.make_node("IsNaN", [value], [f"{value}.lacks"]),
            helper.make_node("Where", [f"{value}.lacks", scaled.mean, value], [given]),
        ]
    return [
        *nodes,
        helper.make_node("Sub", [given, scaled.mean], [f"{value}.centred"]),
        helper.make_node("Div", [f"{value}.centred", scaled.deviation], [f"{value}.unbounded"]),
        helper.make_node("Clip", [f"{value}.unbounded", *bounds], [f"{value}{_SCALED}"]),
    ]
