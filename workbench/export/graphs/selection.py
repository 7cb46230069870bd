"""`Where` over many values as products with a mask, which onnxruntime computes several times as fast.

A product with 0 makes NaN of an infinite or undefined value, where `Where` drops it. So the sum of the operands is
looked at first: if it isn't finite, `Where` selects after all. Either way the result is that of `Where`, but for
the sign of a zero.
"""

from collections.abc import Sequence
from math import isfinite, prod

import onnx_ir
from onnx_ir import Graph, Node, Value, convenience
from onnx_ir.tape import Tape

FEWEST_VALUES = 64
"""Of a row of the batch. With fewer, looking at the sum costs what is saved; measured with onnxruntime 1.32 on x86-64,
in batches of 16 rows."""


def select_by_products(graph: Graph) -> None:
    """Rewrite in place each `Where` for which that is faster."""
    for node in [node for node in graph if node.op_type == "Where" and _is_worth_it(node)]:
        _rewrite(graph, node)


def _is_worth_it(where: Node) -> bool:
    condition, *operands = where.inputs
    result = where.outputs[0]
    if condition is None or condition.const_value is not None or result.is_graph_output():
        return False
    if result.dtype != onnx_ir.DataType.FLOAT or result.shape is None:
        return False
    if prod(size for size in result.shape if isinstance(size, int)) < FEWEST_VALUES:
        return False
    numbers = [_number(operand) for operand in operands]
    return None in numbers and all(number is None or isfinite(number) for number in numbers)


def _rewrite(graph: Graph, where: Node) -> None:
    """An `If` in its place, whose branches are the product and, where that could be wrong, the selection."""
    condition, *operands = where.inputs
    before, products, selection = Tape(), Tape(), Tape()
    undefined = _has_undefined(
        before, [operand for operand in operands if operand is not None and _number(operand) is None]
    )
    kept = [(operand, truth) for operand, truth in zip(operands, (True, False), strict=True) if _number(operand) != 0]
    made = [products.op("Mul", [_mask(products, condition, truth=truth), operand]) for operand, truth in kept]
    result = where.outputs[0]
    branches = {
        "then_branch": _branch(selection, selection.op("Where", where.inputs), result),
        "else_branch": _branch(products, made[0] if len(made) == 1 else products.op("Add", made), result),
    }
    chosen = before.op("If", [undefined], branches)
    chosen.shape, chosen.type = result.shape, result.type
    graph.insert_before(where, before.nodes)
    result.replace_all_uses_with(chosen)
    graph.remove(where, safe=True)


def _mask(tape: Tape, condition: Value | None, *, truth: bool) -> Value:
    """f32: 1 where the condition has this truth, and 0 elsewhere."""
    chosen = condition if truth else tape.op("Not", [condition])
    return tape.op("Cast", [chosen], {"to": onnx_ir.DataType.FLOAT.value})


def _has_undefined(tape: Tape, operands: Sequence[Value]) -> Value:
    """bool[]: whether a sum over the operands is infinite or undefined, which subtracted from itself is undefined."""
    first, *others = [tape.op("ReduceSum", [operand], {"keepdims": 0}) for operand in operands]
    for other in others:
        first = tape.op("Add", [first, other])
    return tape.op("IsNaN", [tape.op("Sub", [first, first])])


def _branch(tape: Tape, made: Value, result: Value) -> Graph:
    """What is on the tape as a graph that gives `made`, of the shape and type of `result`."""
    made.shape, made.type = result.shape, result.type
    return Graph([], [made], nodes=tape.nodes, name="branch")


def _number(value: Value | None) -> float | None:
    """What a constant of one entry is."""
    tensor = None if value is None else convenience.get_const_tensor(value)
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None
