"""What a graph contains, read from its bytes before onnxruntime sees them; what no bundle needs is refused. Pure.

docs/decisions/graphs-are-checked.md says what each rule keeps out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from bundle_runtime.onnx_fields import FIELDS, REFUSED
from bundle_runtime.protobuf_wire import Wire, WireError, read_fields
from fleet_protocol.bundle_files import ORT_OPTIMISER_FILE, ORT_TRAINING_FILE
from fleet_protocol.task_description import OnnxVersion

STANDARD_DOMAINS: Final = frozenset({b"", b"ai.onnx"})
EXTRA_DOMAINS: Final = {ORT_TRAINING_FILE: b"com.microsoft", ORT_OPTIMISER_FILE: b"com.microsoft"}
"""The second training engine, which is one release for ever, has operators beside ONNX's."""
REFUSED_OPERATORS: Final = frozenset({b"EPContext", b"ATen", b"PythonOp", b"PythonOpGrad"})
"""Those of that domain that load what is outside the graph."""
RANDOM_OPERATORS: Final = frozenset(
    {b"Bernoulli", b"Multinomial", b"RandomNormal", b"RandomNormalLike", b"RandomUniform", b"RandomUniformLike"}
)
"""Those that draw: onnxruntime goes on where the last call ended, so what one sample draws moves what others get."""
INPUTS_OF_STILL_DROPOUT: Final = 2
"""A `Dropout` draws where its third input says so."""
SUBGRAPH_OPERATORS: Final = frozenset({b"If", b"Loop", b"Scan"})

MAX_GRAPH_DEPTH: Final = 4
"""Graphs inside the graph. Those that ship have one: the step that training scans mini-batches with."""
MAX_GRAPH_FIELDS: Final = 2**18
"""Fields of all messages in a file; the largest graph that ships has about 6,000."""
MAX_LOOP_ITERATIONS: Final = 1_000_000
"""Of all `Loop`s and inner `Scan`s around a node, multiplied."""
CONSTANT_FIELDS: Final = {
    b"value": "t",
    b"value_int": "i",
    b"value_ints": "ints",
    b"value_float": "f",
    b"value_floats": "floats",
    b"value_string": "s",
    b"value_strings": "strings",
}
"""The attributes of a `Constant`, of which it has one, and the field that holds the value."""
OLDEST_OPSET: Final = 13
INT64: Final = 7
INT64_BYTES: Final = 8

_ATTRIBUTE_VALUES: Final = ("f", "i", "s", "t", "g", "floats", "ints", "strings")
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

    def present(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.numbers or name in self.parts]


Attributes = Mapping[bytes, _Message]


@dataclass(frozen=True, slots=True)
class _Constant:
    """A tensor that the file holds: its value where it is one int64, and the length of its first axis if it has one."""

    value: int | None = None
    length: int | None = None


Constants = Mapping[bytes, _Constant]
"""What a graph and those around it hold, by name."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a graph stands: `iterations` is how often the `Loop`s and inner `Scan`s around it run it, `given` are the
    inputs of the whole model that its caller always gives; empty in a graph inside it.
    """

    depth: int
    iterations: int
    in_scan: bool
    given: frozenset[bytes]


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
        self._may_draw = file in EXTRA_DOMAINS
        self._domains = STANDARD_DOMAINS | {EXTRA_DOMAINS.get(file, b"")}
        self._fields_left = MAX_GRAPH_FIELDS

    def check_model(self, data: memoryview) -> OnnxVersion:
        model = self._read("ModelProto", data)
        if "graph" not in model.parts:
            raise GraphRefusedError("is no ONNX model: it has no graph")
        version = OnnxVersion(ir_version=model.number("ir_version"), opset=self._check_opsets(model))
        self._check_graph(model.parts["graph"][0], _Place(0, 1, in_scan=False, given=frozenset()), {})
        return version

    def _check_opsets(self, model: _Message) -> int:
        imports = [self._read("OperatorSetIdProto", part) for part in model.parts.get("opset_import", [])]
        opsets = [entry.number("version") for entry in imports if entry.text("domain") in STANDARD_DOMAINS]
        if len(opsets) != 1 or opsets[0] < OLDEST_OPSET:
            raise GraphRefusedError(f"imports opset {opsets or 'none'}; one is taken, from {OLDEST_OPSET} on")
        return opsets[0]

    def _check_graph(self, data: memoryview, place: _Place, outer: Constants) -> None:
        if place.depth > MAX_GRAPH_DEPTH:
            raise GraphRefusedError(f"has graphs nested deeper than {MAX_GRAPH_DEPTH}")
        graph = self._read("GraphProto", data)
        tensors = [self._check_tensor(part) for part in graph.parts.get("initializer", [])]
        own = dict(tensors)
        if len(own) < len(tensors):
            raise GraphRefusedError("has two tensors of one name")
        inputs = {self._read("ValueInfoProto", part).text("name") for part in graph.parts.get("input", [])}
        if not place.depth:
            place = replace(place, given=frozenset(inputs - own.keys()))
        # A caller's value replaces the constant.
        constants = {name: value for name, value in {**outer, **own}.items() if name not in inputs}
        for part in graph.parts.get("node", []):
            self._check_node(self._read("NodeProto", part), place, constants)

    def _check_node(self, node: _Message, place: _Place, constants: dict[bytes, _Constant]) -> None:
        operator = node.text("op_type")
        if (domain := node.text("domain")) not in self._domains:
            raise GraphRefusedError(
                f"has the operator {_shown(operator)} of the domain {_shown(domain)}, not ONNX's own"
            )
        if operator in REFUSED_OPERATORS:
            raise GraphRefusedError(f"has the operator {_shown(operator)}, which loads what is outside the graph")
        if not self._may_draw and _draws(node):
            raise GraphRefusedError(f"has the operator {_shown(operator)}, which draws, and remembers earlier calls")
        attributes = self._check_attributes(node)
        for output in node.parts.get("output", []):
            constants.pop(bytes(output), None)
        if operator == b"Constant":
            constants[node.text("output")] = self._constant(attributes)
        subgraphs = [part for attribute in attributes.values() for part in attribute.parts.get("g", [])]
        if subgraphs and operator not in SUBGRAPH_OPERATORS:
            raise GraphRefusedError(f"has the operator {_shown(operator)} with a graph of its own")
        inside = _inside(node, attributes, place, constants)
        for part in subgraphs:
            self._check_graph(part, inside, constants)

    def _check_attributes(self, node: _Message) -> Attributes:
        """Those of a node, by name; each stands once and has one value, or two readers could take two of them."""
        attributes: dict[bytes, _Message] = {}
        for part in node.parts.get("attribute", []):
            attribute = self._read("AttributeProto", part)
            name = attribute.text("name")
            if name in attributes or len(attribute.present(_ATTRIBUTE_VALUES)) > 1:
                operator = _shown(node.text("op_type"))
                raise GraphRefusedError(f"has the operator {operator} with more than one value of {_shown(name)}")
            attributes[name] = attribute
            for tensor in attribute.parts.get("t", []):
                self._check_tensor(tensor)
        return attributes

    def _constant(self, attributes: Attributes) -> _Constant:
        """What a `Constant` holds."""
        names = list(attributes)
        if len(names) != 1 or attributes[names[0]].present(_ATTRIBUTE_VALUES) != [CONSTANT_FIELDS.get(names[0])]:
            shown = ", ".join(map(_shown, names)) or "none"
            raise GraphRefusedError(f"has a Constant with the attributes {shown}; it has one, which holds its value")
        held = attributes[names[0]]
        if "t" in held.parts:
            return self._check_tensor(held.parts["t"][0])[1]
        return _Constant(_signed(held.number("i")) if "i" in held.numbers else None)

    def _check_tensor(self, data: memoryview) -> tuple[bytes, _Constant]:
        """Its name, and what it holds."""
        tensor = self._read("TensorProto", data)
        if tensor.number("data_location"):
            raise GraphRefusedError("has a tensor outside the file (data_location)")
        if len(fields := tensor.present(_DATA)) > 1:
            raise GraphRefusedError(f"has a tensor with data in {' and '.join(fields)}")
        held = sum(len(part) + (name == "string_data") for name in _DATA for part in tensor.parts.get(name, []))
        sizes = tensor.numbers.get("dims", [])
        values = math.prod(sizes)
        if values > _VALUES_PER_BYTE * held:
            raise GraphRefusedError(f"has a tensor of {values} values and {held} bytes of data")
        raw = tensor.parts.get("raw_data", [b""])[0]
        is_int64 = tensor.number("data_type") == INT64 and len(raw) == INT64_BYTES
        value = int.from_bytes(raw, "little", signed=True) if is_int64 else None
        return tensor.text("name"), _Constant(value, sizes[0] if sizes else None)

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


def _draws(node: _Message) -> bool:
    operator = node.text("op_type")
    is_dropout = operator == b"Dropout" and len(node.parts.get("input", [])) > INPUTS_OF_STILL_DROPOUT
    return operator in RANDOM_OPERATORS or is_dropout


def _inside(node: _Message, attributes: Attributes, place: _Place, constants: Constants) -> _Place:
    """Where the graphs of a node stand.

    Raises:
        GraphRefusedError: it repeats them without an end that can be seen, or too often.
    """
    inside = replace(place, depth=place.depth + 1, given=frozenset())
    operator = node.text("op_type")
    if operator == b"Loop":
        if place.in_scan:
            raise GraphRefusedError("has a Loop inside a Scan")
        return replace(inside, iterations=_bounded(place.iterations * _trip_count(node, constants)))
    if operator == b"Scan":
        scanned = _scanned(node, attributes)
        if frozenset(scanned) & place.given:
            return replace(inside, in_scan=True)
        return replace(inside, iterations=_bounded(place.iterations * _length(scanned, attributes, constants)))
    return inside


def _bounded(iterations: int) -> int:
    if iterations > MAX_LOOP_ITERATIONS:
        raise GraphRefusedError(f"loops {iterations} times; at most {MAX_LOOP_ITERATIONS} are taken")
    return iterations


def _scanned(scan: _Message, attributes: Attributes) -> list[bytes]:
    """The names of what a `Scan` scans, which has one length."""
    inputs = scan.parts.get("input", [])
    count = attributes[b"num_scan_inputs"].number("i") if b"num_scan_inputs" in attributes else 0
    return [bytes(name) for name in inputs[max(len(inputs) - count, 0) :]]


def _length(scanned: Iterable[bytes], attributes: Attributes, constants: Constants) -> int:
    """How often a `Scan` over no input runs: as often as a constant that it scans has entries."""
    lengths = [constants[name].length for name in scanned if name in constants]
    length = next((length for length in lengths if length is not None), None)
    if length is None or b"scan_input_axes" in attributes:
        raise GraphRefusedError("has a Scan over no input of the model and no constant: nothing bounds its length")
    return max(length, 1)


def _trip_count(loop: _Message, constants: Constants) -> int:
    """How often a `Loop` runs at most."""
    inputs = loop.parts.get("input", [])
    count = constants.get(bytes(inputs[0]), _Constant()).value if inputs else None
    if count is None:
        raise GraphRefusedError("has a Loop whose number of iterations is no constant")
    return max(count, 1)


def _signed(number: int) -> int:
    """A varint as int64."""
    return number - 2**64 if number >= 2**63 else number


def _shown(name: bytes) -> str:
    return repr(name[:64].decode(errors="replace"))
