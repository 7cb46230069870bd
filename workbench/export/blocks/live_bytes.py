"""How many bytes of values are alive at once while a graph runs, for each sample of its mini-batch."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from bundle_runtime.graph import native, open_session, session_options

Feeds = Mapping[str, NDArray[np.generic]]


def live_bytes_per_sample(model: ModelProto, few: Feeds, many: Feeds, more_rows: int) -> int:
    """The most at any operator, in the order of the graph, with what goes in and what comes out of it.

    Each value's size is seen in two runs, the second of so many more rows: what grows with them counts, weights don't.
    What is inside of a loop does not count, but what the loop takes and gives counts twice while it runs: so much do
    workers need that train recurrent layers (`python -m benchmarks.worker_memory`).
    """
    first, second = _bytes_of_values(model, few), _bytes_of_values(model, many)
    growth = {name: max(size - first[name], 0) // more_rows for name, size in second.items()}
    return _peak(model.graph, growth)


def _bytes_of_values(model: ModelProto, feeds: Feeds) -> dict[str, int]:
    """Of each value of the graph, by its name, in a run without any fusing of operators."""
    watched = ModelProto()
    watched.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del watched.graph.output[:]
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = session_options(threads=1)
    options.graph_optimization_level = native.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(watched.SerializeToString(), options)
    taken = {entry.name: feeds[entry.name] for entry in session.get_inputs()}
    values = session.run(names, taken)
    return {name: value.nbytes for name, value in (*taken.items(), *zip(names, values, strict=True))}


def _peak(graph: GraphProto, growth: Mapping[str, int]) -> int:
    """The largest sum over values that are made and still needed."""
    kept = {entry.name for entry in (*graph.input, *graph.output)}
    last_use = {name: place for place, node in enumerate(graph.node) for name in _taken(node)}
    live = peak = sum(growth.get(entry.name, 0) for entry in graph.input)
    for place, node in enumerate(graph.node):
        live += sum(growth.get(name, 0) for name in node.output)
        peak = max(peak, live + _beside(node, growth))
        over = {
            name for name in (*_taken(node), *node.output) if name not in kept and last_use.get(name, place) == place
        }
        live -= sum(growth.get(name, 0) for name in over)
    return peak


def _beside(node: NodeProto, growth: Mapping[str, int]) -> int:
    """Of a loop, what it takes and gives once more; of any other operator nothing."""
    is_loop = any(attribute.HasField("g") for attribute in node.attribute)
    return sum(growth.get(name, 0) for name in (*node.input, *node.output)) if is_loop else 0


def _taken(node: NodeProto) -> set[str]:
    """What an operator takes, and what graphs inside of it do."""
    inner = (attribute.g for attribute in node.attribute if attribute.HasField("g"))
    return set(node.input).union(*(_taken(each) for graph in inner for each in graph.node))
