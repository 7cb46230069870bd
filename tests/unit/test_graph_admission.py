"""What a graph may not contain is found in its bytes, before onnxruntime sees them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle_runtime.graph import Graph, GraphError
from bundle_runtime.graph_admission import (
    MAX_GRAPH_DEPTH,
    MAX_GRAPH_FIELDS,
    MAX_LOOP_ITERATIONS,
    GraphRefusedError,
    check_graph,
)
from bundle_runtime.onnx_fields import FIELDS, REFUSED
from fleet_protocol.bundle import ORT_TRAINING_FILE, TRAIN_FILE, OnnxVersion
from tests.support.graphs import external, loop, model_of, nested, reader_of
from workbench.recipe_folder import find_recipe

SHIPPED = sorted(find_recipe("digits").parent.glob("*/bundle/*.onnx"))
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
