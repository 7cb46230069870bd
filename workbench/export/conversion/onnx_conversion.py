"""A torch function as one graph of `ai.onnx` operators: traced, converted, folded, and the same bytes every time."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import fx
from torch.onnx._internal.exporter._core import _exported_program_to_onnx_program

from workbench.export.conversion.folding import fold
from workbench.export.conversion.scan_nodes import scan_nodes
from workbench.export.conversion.traced_program import program_of
from workbench.export.conversion.tracing import GraphInput, dtypes_of, trace
from workbench.export.conversion.translations import OPSET, translations
from workbench.export.conversion.type_promotion import insert_casts
from workbench.export.layers.layer_context import UnexportableError
from workbench.export.layers.recurrence import REPEAT

IR_VERSION = 8
"""The oldest model format that carries opset 18."""


def convert(
    function: Callable[..., object],
    inputs: Sequence[GraphInput],
    outputs: Sequence[str],
    *,
    rewrite: Callable[[onnx_ir.Graph], None] | None = None,
) -> onnx.GraphProto:
    """The graph of `function`, with these input and output names. Names of other values hold no dot.

    `rewrite` changes the folded graph.

    Raises:
        torch.onnx.OnnxExporterError: an operator has no counterpart in ONNX.
        UnexportableError: there is none for complex numbers, or for bfloat16.
        RuntimeError or a relative: whatever torch raises where the function can't be traced.
    """
    traced = trace(function, inputs)
    with warnings.catch_warnings(), _complex_numbers_explained(traced):
        warnings.simplefilter("ignore")  # it warns of deprecations inside itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # and that torchvision is missing
        program = program_of(traced, tuple(entry.example() for entry in inputs))
        insert_casts(program.graph_module)
        registry = translations({REPEAT: scan_nodes(traced, convert)})
        model = _exported_program_to_onnx_program(program, registry=registry).model
    _copy_inputs_given_back(model.graph)
    for values, names in ((model.graph.inputs, [entry.name for entry in inputs]), (model.graph.outputs, outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    fold(model)
    if rewrite is not None:
        rewrite(model.graph)
    ClearMetadataAndDocStringPass()(model)
    _number_values(model.graph)
    graph = onnx_ir.to_proto(model).graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    return graph


def _copy_inputs_given_back(graph: onnx_ir.Graph) -> None:
    """Give an input that is an output too a copy there: one value can't have two names."""
    for place, value in enumerate(graph.outputs):
        if value.is_graph_input():
            copy = onnx_ir.Node("", "Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            graph.outputs[place] = copy.outputs[0]


@contextmanager
def _complex_numbers_explained(traced: fx.GraphModule) -> Iterator[None]:
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        if torch.complex64 not in dtypes_of(traced):
            raise
        raise UnexportableError(
            "it computes with complex numbers, and ONNX has few operators for them",
            "compute it from the real and the imaginary parts; torch.fft.fft, rfft, their inverses and torch.stft are"
            " exported, and sums, products and abs() of what they give",
        ) from error


def checked_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A graph as a model of our opset, if it is a valid one."""
    model = onnx.helper.make_model(
        graph,
        producer_name="edgeflock",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _number_values(graph: onnx_ir.Graph, place: str = "") -> None:
    """Name inner values after their operator and place, so that bytes depend on nothing but the graph."""
    constants = list(graph.initializers.values())
    for prefix in ("unnumbered", "constant"):  # those of a graph inside this one were numbered for themselves
        for number, value in enumerate(constants):
            value.name = f"{prefix}_{number}"
    for number, value in enumerate(graph.inputs if place else ()):
        value.name = f"{place}given_{number}"
    for number, node in enumerate(graph):
        node.name = f"{place}{node.op_type.lower()}_{number}"
        for output_number, output in enumerate(node.outputs):
            if output.name and (place or not output.is_graph_output()):
                output.name = f"{node.name}_{output_number}" if output_number else node.name
        for attribute in node.attributes.values():
            if attribute.type is onnx_ir.AttributeType.GRAPH:
                _number_values(attribute.as_graph(), f"{node.name}_")
