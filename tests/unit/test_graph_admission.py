"""What a graph may not contain is found in its bytes, before onnxruntime sees them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bundle_runtime.graph import Graph, GraphError
from bundle_runtime.graph_admission import (
    MAX_GRAPH_DEPTH,
    MAX_GRAPH_FIELDS,
    MAX_LOOP_ITERATIONS,
    RANDOM_OPERATORS,
    GraphRefusedError,
    check_graph,
)
from bundle_runtime.onnx_fields import FIELDS, REFUSED
from fleet_protocol.bundle_files import BACKBONE_FILE, ORT_TRAINING_FILE, PREDICT_FILE, TRAIN_FILE
from fleet_protocol.task_description import OnnxVersion
from tests.support.graphs import external, loop, model_of, nested, reader_of, scan
from workbench.recipe_folder import find_recipe

SHIPPED = sorted(path for path in find_recipe("digits").parent.glob("*/bundle/*.onnx") if path.name != BACKBONE_FILE)
"""Without backbones that came as files: `make demo-speech` leaves one."""
CONSTANT = helper.make_node("Constant", [], ["o"], value_float=1.0)


def refusal_of(model: onnx.ModelProto | bytes, file: str = TRAIN_FILE) -> str:
    with pytest.raises(GraphRefusedError) as caught:
        check_graph(file, model if isinstance(model, bytes) else model.SerializeToString())
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_shipped_graph_is_taken(path: Path):
    assert check_graph(path.name, path.read_bytes()) == OnnxVersion(ir_version=8, opset=18)


def test_every_field_of_onnx_is_either_taken_or_refused_by_its_name():
    for message, rules in FIELDS.items():
        known = {number: rule.name for number, rule in rules.items()}
        refused = {number: name for (where, number), name in REFUSED.items() if where == message}
        fields = {each.number: each.name for each in getattr(onnx, message).DESCRIPTOR.fields}
        assert known.keys().isdisjoint(refused)
        assert known | refused == fields


@pytest.mark.parametrize(
    "location", ["../../device.key", "samples.db", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", ""], ids=str
)
def test_no_tensor_is_read_from_another_file_or_from_memory(location: str):
    assert "external_data" in refusal_of(reader_of(location))


def test_data_outside_the_file_is_found_wherever_a_tensor_can_stand():
    tensor = external("../../device.key")
    in_attribute = helper.make_node("Constant", [], ["o"], value=tensor)
    branch = helper.make_graph([CONSTANT], "branch", [], [], [tensor])
    in_branch = helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    for node in (in_attribute, in_branch):
        assert "external_data" in refusal_of(model_of([node]))
    located = TensorProto(name="t", data_type=1, data_location=TensorProto.EXTERNAL)
    assert "data_location" in refusal_of(model_of([CONSTANT], [located]))


def test_operators_of_other_domains_are_named():
    node = helper.make_node("ReadFile", [], ["o"], domain="evil")
    assert "operator 'ReadFile' of the domain 'evil'" in refusal_of(model_of([node]))
    gelu = model_of([helper.make_node("Gelu", ["x"], ["o"], domain="com.microsoft")])
    assert "com.microsoft" in refusal_of(gelu)
    assert check_graph(ORT_TRAINING_FILE, gelu.SerializeToString()).opset == 18
    context = model_of([helper.make_node("EPContext", [], ["o"], domain="com.microsoft")])
    assert "'EPContext', which loads what is outside the graph" in refusal_of(context, ORT_TRAINING_FILE)


DROPOUT = helper.make_node("Dropout", ["x", "", "training"], ["o"])
DRAWING = [*(helper.make_node(name.decode(), [], ["o"]) for name in sorted(RANDOM_OPERATORS)), DROPOUT]
DRAWING = [*(helper.make_node(name.decode(), [], ["o"]) for name in sorted(RANDOM_OPERATORS)), DROPOUT]


@pytest.mark.parametrize("node", DRAWING, ids=lambda node: node.op_type)
def test_operators_that_remember_what_they_have_drawn_are_named_wherever_they_stand(node: NodeProto):
    branch = helper.make_graph([node], "branch", [], [])
    inside = helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    for each in (node, inside):
        assert f"'{node.op_type}', which draws, and remembers" in refusal_of(model_of([each]))
        assert check_graph(ORT_TRAINING_FILE, model_of([each]).SerializeToString()).opset == 18
    still = model_of([helper.make_node("Dropout", ["x", "ratio"], ["o"])])
    assert check_graph(BACKBONE_FILE, still.SerializeToString()).opset == 18


def test_functions_are_refused():
    model = model_of([CONSTANT])
    model.functions.append(helper.make_function("evil", "F", [], ["o"], [CONSTANT], []))
    assert "field 25 of ModelProto (functions)" in refusal_of(model)


@pytest.mark.parametrize("opsets", [[], [12], [18, 18]])
def test_one_opset_is_imported(opsets: list[int]):
    model = model_of([CONSTANT])
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid("ai.onnx" if place else "", at) for place, at in enumerate(opsets))
    assert "imports opset" in refusal_of(model)


def test_nesting_has_an_end():
    check_graph(TRAIN_FILE, model_of(nested(MAX_GRAPH_DEPTH)).SerializeToString())
    assert "nested deeper than 4" in refusal_of(model_of(nested(MAX_GRAPH_DEPTH + 1)))


def test_loops_have_an_end():
    check_graph(TRAIN_FILE, model_of(loop(MAX_LOOP_ITERATIONS)).SerializeToString())
    assert "loops 1000001 times" in refusal_of(model_of(loop(MAX_LOOP_ITERATIONS + 1)))
    assert "no constant" in refusal_of(model_of(loop(None)))
    inside = helper.make_graph(loop(1001), "body", [], [])
    assert "loops 1001000 times" in refusal_of(model_of(loop(1000, inside)))


@pytest.mark.parametrize("values", [(2**40, 1), (1, 2**40), (1, 1)])
def test_attribute_stands_once_in_a_node(values: tuple[int, int]):
    nodes = loop(1)
    nodes[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(values[0])))
    nodes[0].attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.array(values[1]))))
    assert "operator 'Constant' with more than one value of 'value'" in refusal_of(model_of(nodes))
    cast = helper.make_node("Cast", ["count"], ["o"], to=1)
    cast.attribute.append(helper.make_attribute("to", 7))
    assert "operator 'Cast' with more than one value of 'to'" in refusal_of(model_of([*loop(1), cast]))


def test_attribute_has_one_value():
    nodes = loop(1)
    nodes[0].attribute[0].i = 2**40
    assert "more than one value of 'value'" in refusal_of(model_of(nodes))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"value_int": 2**40, "value": numpy_helper.from_array(np.array(1))}, "'value', 'value_int'"),
        ({"value_int": 1, "value_float": 1.0}, "'value_float', 'value_int'"),
        ({"number": numpy_helper.from_array(np.array(1))}, "'number'"),
        ({}, "none"),
    ],
    ids=["tensor and number", "two numbers", "unknown", "none"],
)
def test_constant_has_one_of_its_attributes(attributes: dict[str, object], said: str):
    nodes = [helper.make_node("Constant", [], ["count"], **attributes), loop(1)[1]]
    assert f"a Constant with the attributes {said}; it has one" in refusal_of(model_of(nodes))


def test_constant_of_one_number_is_a_number_of_iterations():
    bounded, unbounded = (
        model_of([helper.make_node("Constant", [], ["count"], value_int=count), loop(1)[1]]) for count in (10, 2**40)
    )
    check_graph(TRAIN_FILE, bounded.SerializeToString())
    assert f"loops {2**40} times" in refusal_of(unbounded)


def test_tensor_has_its_data_in_one_field():
    tensor = numpy_helper.from_array(np.array(1), "count")
    tensor.int64_data.append(2**40)
    assert "a tensor with data in raw_data and int64_data" in refusal_of(model_of(loop(1)[1:], [tensor]))


def test_tensor_has_a_name_of_its_own():
    tensors = [numpy_helper.from_array(np.array(value), "count") for value in (2**40, 1)]
    assert "two tensors of one name" in refusal_of(model_of(loop(1)[1:], tensors))


def test_scan_is_as_long_as_an_input_of_the_model():
    model = model_of(scan("x", "expanded"))
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]))
    check_graph(TRAIN_FILE, model.SerializeToString())
    assert "a Scan over no input of the model" in refusal_of(model_of(scan("expanded")))
    without_rows = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[2**40, 0])
    model.graph.initializer.append(without_rows)
    assert "a Scan over no input of the model" in refusal_of(model)


def test_scan_and_other_loops_do_not_multiply():
    body = helper.make_graph(scan("x"), "body", [], [])
    assert "a Scan over no input of the model" in refusal_of(model_of(loop(2, body)))
    for nodes, said in ((scan("x"), "a Scan over no input of the model"), (loop(2), "a Loop inside a Scan")):
        model = model_of(scan("x", body=nodes))
        model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]))
        assert said in refusal_of(model)


def inner_scan(body: Sequence[NodeProto] = (), **attributes: Sequence[int]) -> NodeProto:
    """A `Scan` over the tensor `count` and something made."""
    inner = helper.make_graph(list(body), "inner", [], [])
    return helper.make_node("Scan", ["made", "count"], ["o"], body=inner, num_scan_inputs=2, **attributes)


def of_steps(node: NodeProto, *tensors: TensorProto) -> onnx.ModelProto:
    model = model_of(scan("x", body=[node]), tensors)
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]))
    return model


def test_scan_inside_a_step_is_as_long_as_a_constant():
    count = numpy_helper.from_array(np.arange(128), "count")
    check_graph(TRAIN_FILE, of_steps(inner_scan(), count).SerializeToString())
    assert "a Scan over no input of the model" in refusal_of(of_steps(inner_scan()))
    across = of_steps(inner_scan(scan_input_axes=[1, 1]), count)
    assert "a Scan over no input of the model" in refusal_of(across)
    given = of_steps(inner_scan(), count)
    given.graph.input.append(helper.make_tensor_value_info("count", TensorProto.INT64, [None]))
    assert "a Scan over no input of the model" in refusal_of(given)


def test_outermost_scan_may_be_as_long_as_a_constant_which_recurrent_layers_are_where_nothing_trains():
    count = numpy_helper.from_array(np.arange(128), "count")
    check_graph(PREDICT_FILE, model_of([inner_scan()], [count]).SerializeToString())
    assert "a Scan over no input of the model" in refusal_of(model_of([inner_scan()]))
    thousand = numpy_helper.from_array(np.arange(1001), "count")
    assert "loops 1002001 times" in refusal_of(model_of([inner_scan([inner_scan()])], [thousand]))


def test_scans_inside_a_step_multiply():
    thousand = numpy_helper.from_array(np.arange(1001), "count")
    assert "loops 1002001 times" in refusal_of(of_steps(inner_scan([inner_scan()]), thousand))
    without_rows = TensorProto(name="count", data_type=TensorProto.FLOAT, dims=[2**40, 0])
    assert f"loops {2**40} times" in refusal_of(of_steps(inner_scan(), without_rows))


def test_number_of_iterations_that_a_caller_could_give_is_no_constant():
    model = model_of(loop(10)[1:], [numpy_helper.from_array(np.array(10), "count")])
    check_graph(TRAIN_FILE, model.SerializeToString())
    model.graph.input.append(helper.make_tensor_value_info("count", TensorProto.INT64, []))
    assert "no constant" in refusal_of(model)


def test_only_loops_and_branches_have_graphs_of_their_own():
    body = helper.make_graph([CONSTANT], "body", [], [])
    assert "'SequenceMap' with a graph" in refusal_of(model_of([helper.make_node("SequenceMap", [], ["o"], body=body)]))


def test_tensor_has_the_data_for_its_values():
    claimed = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2**20, 2**20], raw_data=bytes(4))
    assert f"a tensor of {2**40} values and 4 bytes" in refusal_of(model_of([CONSTANT], [claimed]))


def test_fields_are_counted_before_there_are_too_many():
    floats = helper.make_node("Constant", [], ["o"], value_floats=[0.0] * MAX_GRAPH_FIELDS)
    assert f"more than {MAX_GRAPH_FIELDS} fields" in refusal_of(model_of([floats]))


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (b"\x08\x08", "ir_version of ModelProto more than once"),
        (b"\x3a\x00", "graph of ModelProto more than once"),
        (b"\xfa\x06\x00", "field 111 of ModelProto (unknown to this edgeflock)"),
        (b"\x0d\x00\x00\x00\x00", "field 1 of ModelProto"),
        (b"\x0b\x0c", "no ONNX model"),
        (b"\x28\x80\x00", "longer than it has to be"),
        (b"\x28" + b"\xff" * 9 + b"\x02", "longer than it has to be"),
        (b"\x28" + b"\xff" * 11, "without an end"),
        (b"\x32\x05abc", "5 bytes, 3 are left"),
        (b"\x00\x00", "no ONNX model"),
    ],
    ids=["twice", "merged", "unknown", "another type", "group", "padded", "65 bits", "endless", "short", "field 0"],
)
def test_bytes_that_another_reader_might_take_for_something_else_are_refused(added: bytes, said: str):
    assert said in refusal_of(model_of([CONSTANT]).SerializeToString() + added)


def test_nothing_that_is_refused_reaches_onnxruntime(tmp_path):
    (tmp_path / "near.bin").write_bytes(b"a secret")
    path = tmp_path / TRAIN_FILE
    path.write_bytes(reader_of("near.bin"))
    for source in (path, path.read_bytes()):
        with pytest.raises(GraphError, match=r"train\.onnx has field 13 of TensorProto \(external_data\).*not loaded"):
            Graph(TRAIN_FILE, source)


def test_onnxruntimes_own_format_is_no_graph():
    with pytest.raises(GraphError, match="is not loaded"):
        Graph(TRAIN_FILE, b"\x18\x00\x00\x00ORTM" + bytes(64))
