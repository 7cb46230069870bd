"""Repeated steps as `Scan` nodes: each step is converted by itself into the graph that such a node holds."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import onnx_ir
from onnx import GraphProto
from torch import Tensor, fx
from torch.onnx._internal.exporter._torchlib.ops.hop import call_op

from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.layers.recurrence import REPEAT, STEPS

Convert = Callable[[Callable[..., tuple[Tensor, ...]], Sequence[GraphInput], Sequence[str]], GraphProto]
Values = Sequence[onnx_ir.Value]


def scan_nodes(traced: fx.GraphModule, convert: Convert) -> Callable[..., Values]:
    """What makes a node for each `REPEAT` of this graph, called in their order: an entry for `translations`.

    `convert` makes a graph of a function, as `onnx_conversion.convert` does.
    """
    known: dict[str, GraphProto] = {}
    bodies = []
    for node in [node for node in traced.graph.nodes if node.target is REPEAT]:
        step, *values, _ = node.args
        shapes = [[_shape(value) for value in group] for group in values]
        if (key := f"{step} {shapes}") not in known:
            known[key] = _body(step, shapes, len(node.meta["val"]), convert)
        bodies.append((known[key], node.args[2][0].meta["val"].shape[0]))
    return partial(_scan, iter(bodies))


def _body(step: str, shapes: Sequence[Sequence[tuple[int | None, ...]]], made: int, convert: Convert) -> GraphProto:
    """The graph of one step, on states, entries of the sequences, and what stays the same."""
    states, sequences, fixed = shapes
    inner = [*states, *(shape[1:] for shape in sequences), *fixed]
    first_entry, first_fixed = len(states), len(states) + len(sequences)

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        groups = tensors[:first_entry], tensors[first_entry:first_fixed], tensors[first_fixed:]
        carried, outputs = STEPS[step](*groups)
        return *carried, *outputs

    inputs = [GraphInput(f"given_{number}", shape) for number, shape in enumerate(inner)]
    return convert(flat, inputs, [f"made_{number}" for number in range(made)])


def _scan(
    bodies: Iterator[tuple[GraphProto, int]],
    _step: str,
    states: Values,
    sequences: Values,
    fixed: Values,
    backwards: bool,
) -> Values:
    """The node on these values, with the next body and number of steps.

    One more sequence counts the steps. It has no meaning, but a length that whoever checks the graph can read: a graph
    inside another one may scan nothing else (docs/decisions/graphs-are-checked.md).
    """
    graph, steps = next(bodies)
    body = onnx_ir.serde.deserialize_graph(graph)
    inner = list(body.inputs)
    for given, value in zip(inner[len(states) + len(sequences) :], fixed, strict=True):
        given.replace_all_uses_with(value)
    entries = inner[: len(states) + len(sequences)]
    count = onnx_ir.Value(name="given_count", shape=onnx_ir.Shape([]), type=onnx_ir.TensorType(onnx_ir.DataType.INT64))
    body.inputs[:] = [*entries, count]
    (counted,) = call_op("Constant", value=onnx_ir.tensor(np.arange(steps)))
    made = len(body.outputs) - len(states)
    return call_op(
        "Scan",
        *states,
        *sequences,
        counted,
        _num_outputs=len(body.outputs),
        body=body,
        num_scan_inputs=len(sequences) + 1,
        scan_input_directions=[int(backwards)] * (len(sequences) + 1),
        scan_output_directions=[int(backwards)] * made,
    )


def _shape(node: fx.Node) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else BATCH for size in node.meta["val"].shape)
