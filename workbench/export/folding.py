"""Rewriting a converted graph into fewer, equal operators: a step of a small model is mostly operator overhead.

Autograd leaves transposes around every matrix product and expands before every broadcast. onnxruntime would remove
some of them when it loads the graph; here they go once, for every engine.
"""

from collections.abc import Callable, Sequence

from onnx_ir import AttrInt64, Model, Node, Shape, Value, convenience
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer

SWAP = (1, 0)
"""The permutation that transposes a matrix."""


def fold(model: Model) -> None:
    """Fold `model` in place until no rule applies any more. Inputs and outputs keep their names and meaning."""
    optimizer.optimize(model)
    while _apply_rules(model):
        RemoveUnusedNodesPass()(model)


def cancel_transposes(node: Node) -> bool:
    """`Transpose(Transpose(x))` where the second undoes the first is `x`."""
    inner = _producer(node.inputs[0], "Transpose")
    if inner is None or node.outputs[0].is_graph_output():
        return False
    first, second = _permutation(inner), _permutation(node)
    if [first[axis] for axis in second] != sorted(first):
        return False
    return _replace(node, inner.inputs[0])


def broadcast_product(node: Node) -> bool:
    """`MatMul` of a matrix that is repeated for each one of a stack repeats it by itself."""
    expand, stack = _producer(node.inputs[0], "Expand"), _shape(node.inputs[1])
    if expand is None or stack is None or not _is_matrix(expand.inputs[0]):
        return False
    if not _same_shape(Shape(list(stack)[:-2]), Shape(list(_shape(node.outputs[0]) or ())[:-2])):
        return False
    node.replace_input_with(0, expand.inputs[0])
    return True


def transposed_product(node: Node) -> bool:
    """`MatMul` of matrices, one of them transposed, is a `Gemm` that reads it transposed."""
    left, right = node.inputs
    if not _is_matrix(left) or not _is_matrix(right):
        return False
    if _producer(left, "Transpose") is None and _producer(right, "Transpose") is None:
        return False
    node.op_type = "Gemm"
    return True


def absorb_transposes(node: Node) -> bool:
    """`Gemm` of a transposed operand is `Gemm` with `transA` or `transB` turned over."""
    changed = False
    for index, name in enumerate(("transA", "transB")):
        transpose = _producer(node.inputs[index], "Transpose")
        if transpose is not None and _permutation(transpose) == SWAP:
            node.replace_input_with(index, transpose.inputs[0])
            node.attributes[name] = AttrInt64(name, 1 - node.attributes.get_int(name, 0))
            changed = True
    return changed


def broadcast_instead_of_expand(node: Node) -> bool:
    """An element-wise operator whose other operand has the full shape already broadcasts by itself."""
    changed = False
    for index in (0, 1):
        expand = _producer(node.inputs[index], "Expand")
        other = node.inputs[1 - index]
        if expand is not None and other is not None and _same_shape(other.shape, node.outputs[0].shape):
            node.replace_input_with(index, expand.inputs[0])
            changed = True
    return changed


def sum_without_kept_axis(node: Node) -> bool:
    """`Reshape` that only drops the axes which `ReduceSum` kept: the sum drops them itself."""
    total = _producer(node.inputs[0], "ReduceSum")
    if total is None or len(total.outputs[0].uses()) != 1 or node.outputs[0].is_graph_output():
        return False
    kept = total.outputs[0]
    summed = _shape(total.inputs[0])
    axes = _constant(total.inputs[1:])
    if summed is None or not axes or total.attributes.get_int("keepdims", 1) != 1:
        return False
    dropped = {axis % len(summed) for axis in axes}
    remaining = Shape([size for axis, size in enumerate(summed) if axis not in dropped])
    if not _same_shape(remaining, node.outputs[0].shape):
        return False
    total.attributes["keepdims"] = AttrInt64("keepdims", 0)
    kept.shape = remaining
    return _replace(node, kept)


def matrix_product(node: Node) -> bool:
    """Both rules for `MatMul`."""
    return transposed_product(node) or broadcast_product(node)


RULES: dict[str, Callable[[Node], bool]] = {
    "Transpose": cancel_transposes,
    "MatMul": matrix_product,
    "Gemm": absorb_transposes,
    "Reshape": sum_without_kept_axis,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), broadcast_instead_of_expand),
}


def _apply_rules(model: Model) -> bool:
    changed = [RULES[node.op_type](node) for node in model.graph if node.op_type in RULES]
    return any(changed)


def _producer(value: Value | None, op_type: str) -> Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def _replace(node: Node, value: Value | None) -> bool:
    if value is None:
        return False
    node.outputs[0].replace_all_uses_with(value)
    return True


def _permutation(transpose: Node) -> tuple[int, ...]:
    return tuple(transpose.attributes.get_ints("perm", ()))


def _shape(value: Value | None) -> Shape | None:
    return None if value is None else value.shape


def _is_matrix(value: Value | None) -> bool:
    shape = _shape(value)
    return shape is not None and len(shape) == len(SWAP)


def _constant(operands: Sequence[Value | None]) -> list[int]:
    """The integers in an optional operand; empty if it is absent or only known at run time."""
    tensor = None if not operands or operands[0] is None else convenience.get_const_tensor(operands[0])
    return [] if tensor is None else [int(number) for number in tensor.numpy()]


def _same_shape(one: Shape | None, other: Shape | None) -> bool:
    return one is not None and other is not None and list(one) == list(other)
