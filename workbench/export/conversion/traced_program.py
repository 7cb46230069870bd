"""A traced graph as the program that torch translates into ONNX, without tracing it twice more.

`torch.onnx.export` would trace the graph again to make an `ExportedProgram` of it, and once more to take its operators
apart. Ours has been traced, and its operators taken apart, by `trace`: the two passes were two thirds of an export.
"""

from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.utils import _pytree as pytree


def program_of(traced: fx.GraphModule, examples: tuple[Tensor, ...]) -> ExportedProgram:
    """The program of a graph that takes tensors like `examples` and gives a flat tuple of tensors.

    Tensors in the graph become inputs of their own, as an `ExportedProgram` wants it.
    """
    constants = _lift_constants(traced)
    *placeholders, output = (node for node in traced.graph.nodes if node.op in {"placeholder", "output"})
    inputs = [_input_spec(node.name, is_constant=node.name in constants) for node in placeholders]
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in output.args[0]]
    signature = ModuleCallSignature(
        [], [], pytree.tree_structure((examples, {})), pytree.tree_structure(tuple(output.args[0]))
    )
    return ExportedProgram(
        traced,
        traced.graph,
        ExportGraphSignature(inputs, outputs),
        state_dict={},
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", signature)],
        example_inputs=(examples, {}),
        constants={**constants},
    )


def _input_spec(name: str, *, is_constant: bool) -> InputSpec:
    kind = InputKind.CONSTANT_TENSOR if is_constant else InputKind.USER_INPUT
    return InputSpec(kind, TensorArgument(name), name if is_constant else None)


def _lift_constants(traced: fx.GraphModule) -> dict[str, Tensor]:
    """Turn each tensor that the graph holds into a placeholder before the others; name to tensor."""
    constants: dict[str, Tensor] = {}
    first = next(iter(traced.graph.nodes))
    mode = next(node.meta["val"].fake_mode for node in traced.graph.nodes if isinstance(node.meta.get("val"), Tensor))
    for node in [node for node in traced.graph.nodes if node.op == "get_attr"]:
        with traced.graph.inserting_before(first):
            placeholder = traced.graph.placeholder(f"lifted_{len(constants)}")
        tensor = getattr(traced, str(node.target))
        placeholder.meta["val"] = mode.from_tensor(tensor, static_shapes=True)
        constants[placeholder.name] = tensor
        node.replace_all_uses_with(placeholder)
        traced.graph.erase_node(node)
    return constants
