"""What a graph contains, read from its bytes before onnxruntime sees them; what no bundle needs is refused. Pure.

docs/decisions/graphs-are-checked.md says what each rule keeps out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bundle_runtime.onnx_fields import FIELDS, REFUSED
from bundle_runtime.protobuf_wire import Wire, WireError, read_fields
from fleet_protocol.bundle import ORT_OPTIMISER_FILE, ORT_TRAINING_FILE, OnnxVersion

STANDARD_DOMAINS: Final = frozenset({b"", b"ai.onnx"})
EXTRA_DOMAINS: Final = {ORT_TRAINING_FILE: b"com.microsoft", ORT_OPTIMISER_FILE: b"com.microsoft"}
"""The second training engine, which is one release for ever, has operators beside ONNX's."""
REFUSED_OPERATORS: Final = frozenset({b"EPContext", b"ATen", b"PythonOp", b"PythonOpGrad"})
"""Those of that domain that load what is outside the graph."""
SUBGRAPH_OPERATORS: Final = frozenset({b"If", b"Loop", b"Scan"})

MAX_GRAPH_DEPTH: Final = 4
"""Graphs inside the graph. Training loops over mini-batches; a recurrent layer loops inside that."""
MAX_GRAPH_FIELDS: Final = 2**18
"""Fields of all messages in a file; the largest graph that ships has about 6,000."""
MAX_LOOP_ITERATIONS: Final = 1_000_000
"""Of all `Loop`s around a node, multiplied. A `Scan` ends with the axis that it scans, which has to be in memory."""
OLDEST_OPSET: Final = 13
INT64: Final = 7
INT64_BYTES: Final = 8

_DATA: Final = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_VALUES_PER_BYTE: Final = 2
"""Of the narrowest types, which have four bits."""


class GraphRefusedError(Exception):
    """A graph that is not loaded; says what is in it."""


@dataclass(frozen=True, slots=True)
class _Message:
    """The fields of one message by name: varints, and everything else."""

    numbers: dict[str, list[int]] = field(default_factory=dict)
    parts: dict[str, list[memoryview]] = field(default_factory=dict)

    def number(self, name: str) -> int:
        return self.numbers.get(name, [0])[0]

    def text(self, name: str) -> bytes:
        return bytes(self.parts[name][0]) if name in self.parts else b""


Constants = Mapping[bytes, int | None]
"""Tensors that a graph and those around it hold, by name: the value where it is one int64, else None."""


def check_graph(file: str, data: bytes) -> OnnxVersion:
    """Which ONNX a graph is written for; `file` is its name in the bundle.

    Raises:
        GraphRefusedError: no ONNX model, or one with data outside the file, operators of other domains, functions, a
            field that this edgeflock does not know, or more nesting, iterations or fields than the limits above.
    """
    try:
        return _Walk(file).check_model(memoryview(data))
    except WireError as error:
        raise GraphRefusedError(f"is no ONNX model: {error}") from error


class _Walk:
    """One pass over one file."""

    def __init__(self, file: str) -> None:
        self._domains = STANDARD_DOMAINS | {EXTRA_DOMAINS.get(file, b"")}
        self._fields_left = MAX_GRAPH_FIELDS

    def check_model(self, data: memoryview) -> OnnxVersion:
        model = self._read("ModelProto", data)
        if "graph" not in model.parts:
            raise GraphRefusedError("is no ONNX model: it has no graph")
        version = OnnxVersion(ir_version=model.number("ir_version"), opset=self._check_opsets(model))
        self._check_graph(model.parts["graph"][0], 0, 1, {})
        return version

    def _check_opsets(self, model: _Message) -> int:
        imports = [self._read("OperatorSetIdProto", part) for part in model.parts.get("opset_import", [])]
        opsets = [entry.number("version") for entry in imports if entry.text("domain") in STANDARD_DOMAINS]
        if len(opsets) != 1 or opsets[0] < OLDEST_OPSET:
            raise GraphRefusedError(f"imports opset {opsets or 'none'}; one is taken, from {OLDEST_OPSET} on")
        return opsets[0]

    def _check_graph(self, data: memoryview, depth: int, iterations: int, outer: Constants) -> None:
        """`iterations` is how often the `Loop`s around it run it."""
        if depth > MAX_GRAPH_DEPTH:
            raise GraphRefusedError(f"has graphs nested deeper than {MAX_GRAPH_DEPTH}")
        graph = self._read("GraphProto", data)
        constants = dict(outer)
        for part in graph.parts.get("initializer", []):
            name, value = self._check_tensor(part)
            constants[name] = value
        for part in graph.parts.get("input", []):  # a caller's value replaces the constant
            constants.pop(self._read("ValueInfoProto", part).text("name"), None)
        for part in graph.parts.get("node", []):
            self._check_node(self._read("NodeProto", part), depth, iterations, constants)

    def _check_node(self, node: _Message, depth: int, iterations: int, constants: dict[bytes, int | None]) -> None:
        operator = node.text("op_type")
        if (domain := node.text("domain")) not in self._domains:
            raise GraphRefusedError(
                f"has the operator {_shown(operator)} of the domain {_shown(domain)}, not ONNX's own"
            )
        if operator in REFUSED_OPERATORS:
            raise GraphRefusedError(f"has the operator {_shown(operator)}, which loads what is outside the graph")
        attributes = [self._read("AttributeProto", part) for part in node.parts.get("attribute", [])]
        for part in (part for attribute in attributes for part in attribute.parts.get("t", [])):
            _, value = self._check_tensor(part)
            if operator == b"Constant" and "output" in node.parts:
                constants[node.text("output")] = value
        subgraphs = [part for attribute in attributes for part in attribute.parts.get("g", [])]
        if subgraphs and operator not in SUBGRAPH_OPERATORS:
            raise GraphRefusedError(f"has the operator {_shown(operator)} with a graph of its own")
        if operator == b"Loop":
            iterations *= _trip_count(node, constants)
            if iterations > MAX_LOOP_ITERATIONS:
                raise GraphRefusedError(f"loops {iterations} times; at most {MAX_LOOP_ITERATIONS} are taken")
        for part in subgraphs:
            self._check_graph(part, depth + 1, iterations, constants)

    def _check_tensor(self, data: memoryview) -> tuple[bytes, int | None]:
        """Its name, and its value if it is one int64."""
        tensor = self._read("TensorProto", data)
        if tensor.number("data_location"):
            raise GraphRefusedError("has a tensor outside the file (data_location)")
        held = sum(len(part) + (name == "string_data") for name in _DATA for part in tensor.parts.get(name, []))
        values = math.prod(tensor.numbers.get("dims", []))
        if values > _VALUES_PER_BYTE * held:
            raise GraphRefusedError(f"has a tensor of {values} values and {held} bytes of data")
        raw = tensor.parts.get("raw_data", [b""])[0]
        is_int64 = tensor.number("data_type") == INT64 and len(raw) == INT64_BYTES
        return tensor.text("name"), int.from_bytes(raw, "little", signed=True) if is_int64 else None

    def _read(self, name: str, data: memoryview) -> _Message:
        message = _Message()
        rules = FIELDS[name]
        for number, wire, value, part in read_fields(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise GraphRefusedError(f"has more than {MAX_GRAPH_FIELDS} fields")
            rule = rules.get(number)
            if rule is None or rule.wire is not wire:
                known = REFUSED.get((name, number)) or (rule.name if rule else "unknown to this edgeflock")
                raise GraphRefusedError(f"has field {number} of {name} ({known}), which no bundle has")
            if not rule.repeated and (rule.name in message.numbers or rule.name in message.parts):
                raise GraphRefusedError(f"has {rule.name} of {name} more than once")
            if wire is Wire.VARINT:
                message.numbers.setdefault(rule.name, []).append(value)
            else:
                message.parts.setdefault(rule.name, []).append(part)
        return message


def _trip_count(loop: _Message, constants: Constants) -> int:
    """How often a `Loop` runs at most."""
    inputs = loop.parts.get("input", [])
    count = constants.get(bytes(inputs[0])) if inputs else None
    if count is None:
        raise GraphRefusedError("has a Loop whose number of iterations is no constant")
    return max(count, 1)


def _shown(name: bytes) -> str:
    return repr(name[:64].decode(errors="replace"))
