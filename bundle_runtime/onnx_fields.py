"""The fields of ONNX's messages that a graph of a bundle may have (onnx.proto, IR version 14), and those it may not."""

from dataclasses import dataclass
from typing import Final

from bundle_runtime.protobuf_wire import Wire


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One field. `message` names the message in it, where its content is looked at. One that isn't `repeated` stands
    once at most: protobuf would merge two of them, or take the last.
    """

    name: str
    wire: Wire
    repeated: bool = False
    message: str = ""


def _number(name: str) -> FieldRule:
    return FieldRule(name, Wire.VARINT)


def _numbers(name: str) -> FieldRule:
    return FieldRule(name, Wire.VARINT, repeated=True)


def _bytes(name: str) -> FieldRule:
    return FieldRule(name, Wire.LENGTH)


def _many(name: str, message: str = "") -> FieldRule:
    return FieldRule(name, Wire.LENGTH, repeated=True, message=message)


def _one(name: str, message: str) -> FieldRule:
    return FieldRule(name, Wire.LENGTH, message=message)


FIELDS: Final = {
    "ModelProto": {
        1: _number("ir_version"),
        2: _bytes("producer_name"),
        3: _bytes("producer_version"),
        4: _bytes("domain"),
        5: _number("model_version"),
        6: _bytes("doc_string"),
        7: _one("graph", "GraphProto"),
        8: _many("opset_import", "OperatorSetIdProto"),
        14: _many("metadata_props"),
    },
    "OperatorSetIdProto": {1: _bytes("domain"), 2: _number("version")},
    "GraphProto": {
        1: _many("node", "NodeProto"),
        2: _bytes("name"),
        5: _many("initializer", "TensorProto"),
        10: _bytes("doc_string"),
        11: _many("input", "ValueInfoProto"),
        12: _many("output"),
        13: _many("value_info"),
        16: _many("metadata_props"),
    },
    "ValueInfoProto": {1: _bytes("name"), 2: _bytes("type"), 3: _bytes("doc_string"), 4: _many("metadata_props")},
    "NodeProto": {
        1: _many("input"),
        2: _many("output"),
        3: _bytes("name"),
        4: _bytes("op_type"),
        5: _many("attribute", "AttributeProto"),
        6: _bytes("doc_string"),
        7: _bytes("domain"),
        9: _many("metadata_props"),
    },
    "AttributeProto": {
        1: _bytes("name"),
        2: FieldRule("f", Wire.FIXED32),
        3: _number("i"),
        4: _bytes("s"),
        5: _one("t", "TensorProto"),
        6: _one("g", "GraphProto"),
        7: FieldRule("floats", Wire.FIXED32, repeated=True),
        8: _numbers("ints"),
        9: _many("strings"),
        13: _bytes("doc_string"),
        20: _number("type"),
    },
    "TensorProto": {
        1: _numbers("dims"),
        2: _number("data_type"),
        4: _bytes("float_data"),
        5: _bytes("int32_data"),
        6: _many("string_data"),
        7: _bytes("int64_data"),
        8: _bytes("name"),
        9: _bytes("raw_data"),
        10: _bytes("double_data"),
        11: _bytes("uint64_data"),
        12: _bytes("doc_string"),
        14: _number("data_location"),
        16: _many("metadata_props"),
    },
}
"""By message and field number. Fields without a `message` are not looked into: names, types, and data."""

REFUSED: Final = {
    ("ModelProto", 20): "training_info",
    ("ModelProto", 25): "functions",
    ("ModelProto", 26): "configuration",
    ("GraphProto", 14): "quantization_annotation",
    ("GraphProto", 15): "sparse_initializer",
    ("NodeProto", 8): "overload",
    ("NodeProto", 10): "device_configurations",
    ("AttributeProto", 10): "tensors",
    ("AttributeProto", 11): "graphs",
    ("AttributeProto", 14): "tp",
    ("AttributeProto", 15): "type_protos",
    ("AttributeProto", 21): "ref_attr_name",
    ("AttributeProto", 22): "sparse_tensor",
    ("AttributeProto", 23): "sparse_tensors",
    ("TensorProto", 3): "segment",
    ("TensorProto", 13): "external_data",
}
"""Known, and in no graph that edgeflock exports: each would be more to check. `external_data` names a file, or an
address in memory, that onnxruntime reads into the tensor.
"""
