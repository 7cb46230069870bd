"""Rewriting a converted graph into fewer, equal operators: a step of a small model is mostly operator overhead.

Autograd leaves transposes around every matrix product and expands before every broadcast. onnxruntime would remove
some of them when it loads the graph; here they go once, for every engine.

No rule may come near a number: onnxscript's own choice of rules takes a constant within 1e-8 of 0 for 0 and one within
1e-5 of 1 for 1, which makes `log(h + 1e-9)` the log of 0. Of its rules these are the ones about shapes.
"""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from onnx_ir import AttrInt64, Graph, Model, Node, Shape, Value, convenience
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
    NameFixPass,
    OutputFixPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common

SWAP = (1, 0)
"""The permutation that transposes a matrix."""
ROUNDS = 2
"""Folding constants lets rules apply, and the other way round."""
RULES_BY_OPERATOR = {
    "Cast": (
        common.cast_constant_of_shape_rule,
        common.cast_constant_of_shape_without_value_rule,
        common.no_op_cast_rule,
    ),
    "Expand": (common.no_op_expand_rule,),
    "Flatten": (common.flatten_to_reshape_rule,),
    "Max": (common.min_max_rule,),
    "Min": (common.max_min_rule,),
    "Reshape": (
        common.materialize_reshape_shape_rule,
        common.reshape_reshape_rule,
        common.squeeze_reshape_1d_rule,
    ),
    "Slice": (common.collapse_slice_rule, common.collapse_slice2_rule, common.slice_split_rule),
    "Transpose": (common.no_op_transpose_rule, common.transpose_transpose_rule),
    "Unsqueeze": (common.unsqueeze_unsqueeze_rule,),
}
"""The operator that ends what a rule replaces, to the rules. Matching all of them at every node took half an export."""


def _at(operator: str, rule: rewriter.RewriteRule) -> rewriter.RewriteRule:
    """The rule, asked at nodes of one operator alone."""

    def try_rewrite(model: Model, graph: Graph, node: Node, **options: Any) -> object:
        return rule.try_rewrite(model, graph, node, **options) if node.op_type == operator else None

    asked = copy(rule)
    setattr(asked, "try_rewrite", try_rewrite)  # noqa: B010 - a method of one object
    return asked


SHAPE_RULES = [_at(operator, rule) for operator, rules in RULES_BY_OPERATOR.items() for rule in rules]


def fold(model: Model) -> None:
    """Fold `model` in place until no rule applies any more. Inputs and outputs keep their names and meaning."""
    InlinePass()(model)
    for _ in range(ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=_unless_far_larger)
        rewriter.rewrite(model, SHAPE_RULES)
    _tidied(model)
    while _apply_rules(model):
        RemoveUnusedNodesPass()(model)


def _unless_far_larger(node: Node) -> bool | None:
    """False where a constant says in few bytes what would take eight times as many: the places of a pruned tensor's
    entries as gaps, and the zeros between them. onnxruntime folds them when it loads the graph; None is as usual.
    """
    gaps = _producer(node.inputs[0], "Cast") if node.op_type == "CumSum" else None
    followers = {use.node.op_type for value in node.outputs for use in value.uses()}
    is_gaps = node.op_type == "Cast" and followers == {"CumSum"}
    is_zeros = node.op_type in ("ConstantOfShape", "Expand") and followers == {"ScatterElements"}
    return False if gaps is not None or is_gaps or is_zeros else None


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
    """An element-wise operator, one operand of which has the full shape, already broadcasts the others by itself."""
    changed = False
    full = node.outputs[0].shape
    for index, operand in enumerate(node.inputs):
        expand = _producer(operand, "Expand")
        others = (other for place, other in enumerate(node.inputs) if place != index)
        if expand is not None and any(_same_shape(_shape(other), full) for other in others):
            node.replace_input_with(index, expand.inputs[0])
            changed = True
    return changed


def without_effect(node: Node) -> bool:
    """Adding exactly 0, or multiplying by exactly 1, where that changes neither shape nor type."""
    neutral, places = NEUTRAL[node.op_type]
    for place in places:
        operand, kept = node.inputs[place], node.inputs[1 - place]
        tensor = None if operand is None else convenience.get_const_tensor(operand)
        if (
            tensor is not None
            and tensor.size == 1
            and tensor.numpy().item() == neutral
            and _same_shape(_shape(kept), node.outputs[0].shape)
            and not node.outputs[0].is_graph_output()
        ):
            return _replace(node, kept)
    return False


def simplified_arithmetic(node: Node) -> bool:
    """The two rules for element-wise operators, the one that leaves nothing first."""
    return without_effect(node) or broadcast_instead_of_expand(node)


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


NEUTRAL: dict[str, tuple[int, tuple[int, ...]]] = {
    "Add": (0, (0, 1)),
    "Sub": (0, (1,)),
    "Mul": (1, (0, 1)),
    "Div": (1, (1,)),
}
"""Operator to the number that changes nothing, and the operands that it may be."""
RULES: dict[str, Callable[[Node], bool]] = {
    "Transpose": cancel_transposes,
    "MatMul": matrix_product,
    "Gemm": absorb_transposes,
    "Reshape": sum_without_kept_axis,
    "Where": broadcast_instead_of_expand,
    **dict.fromkeys(NEUTRAL, simplified_arithmetic),
}


_tidied = Sequential(
    RemoveUnusedNodesPass(),
    RemoveUnusedOpsetsPass(),
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    LiftSubgraphInitializersToMainGraphPass(),
    DeduplicateInitializersPass(),
    CommonSubexpressionEliminationPass(),
    OutputFixPass(),
    NameFixPass(),
)


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
