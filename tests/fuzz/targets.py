"""What is fuzzed: every decoder of `fleet_protocol`, what the coordinator reads of MQTT, and the check of graphs; each
with its invariant, and valid inputs to start from.

For any input a decoder returns a value or raises `ProtocolError` (`ConfigurationError` for files that a person writes).
Targets that end in `_inside` repair what a mutation nearly always breaks first, a checksum or a magic byte, so that the
code behind it is reached.
"""

import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from broker_coordinator.mqtt.traffic import (
    TrafficDivider,
    acknowledgements,
    publication_packet,
)
from fleet_host.broker_settings import BrokerSettings
from fleet_host.configuration_file import parse_with_paths
from fleet_host.mqtt_packets import MalformedPacketError
from fleet_protocol import cbor, topics
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.codec import (
    ClassStatistics,
    Grid,
    Quantisation,
    apply_difference,
    decode_class_statistics,
    decode_together,
    decode_update,
    encode_difference,
    encode_update,
    read_statistics,
    read_weights,
    without_statistics,
    write_statistics,
)
from fleet_protocol.codec.activations import memory_bound as activations_bound
from fleet_protocol.codec.activations import pack_gradient, unpack_rows
from fleet_protocol.codec.difference import memory_bound as difference_bound
from fleet_protocol.codec.together import MAX_PACKED_BYTES, WORKING_BYTES
from fleet_protocol.codec.update_codec import memory_bound
from fleet_protocol.configuration import parse_document
from fleet_protocol.encryption import decrypt_payload, encrypt_payload
from fleet_protocol.envelope import Envelope, Header, digest, read_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import SigningKey, read_signing_key, read_verify_key
from fleet_protocol.kinds import (
    ENCRYPTED_UPDATE,
    KINDS,
    Update,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import KIB, MAX_CBOR_ITEMS
from fleet_protocol.moved_message import read_moved, write_moved
from fleet_protocol.sessions.frames import (
    Assembly,
    Frame,
    FrameType,
    is_tagged,
    read_frame,
    tagged_anew,
    write_frame,
)
from fleet_protocol.sessions.lifecycle import State
from fleet_protocol.sessions.secrecy import Direction
from fleet_protocol.solved_head import Precision, Solver
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from tests.fuzz.agent_targets import SAMPLES, check_packet_gate, check_sample_line
from tests.fuzz.graph_target import GRAPHS, check_any_graph
from tests.fuzz.mask_targets import MASKED, check_masked
from tests.support.sessions_world import World

ROOT = Path(__file__).parents[2]
BUNDLE, VECTORS = ROOT / "models" / "digits" / "bundle", ROOT / "tests" / "vectors"
TASK_JSON, WEIGHTS = (BUNDLE / DESCRIPTION_FILE).read_bytes(), (BUNDLE / WEIGHTS_FILE).read_bytes()
DIGITS = parse_description(TASK_JSON)
BROKER_TOML = b'host = "broker.local"\nport = 8883\n[tls]\nauthority = "ca.pem"\n'
MESSAGES = [bytes.fromhex(vector["hex"]) for vector in json.loads((VECTORS / "messages.json").read_text())]
MOVED = [bytes.fromhex(vector["hex"]) for vector in json.loads((VECTORS / "moved_messages.json").read_text())]
PAYLOADS = [read_envelope(message, 1000).payload for message in MESSAGES]
PAYLOAD_TYPES = tuple(kind.payload for kind in KINDS.values())
SIGNING_KEY = SigningKey(bytes(32))
VERIFY_KEY = SIGNING_KEY.verify_key
TOPICS = [
    topics.up("f", "0", "pi"),
    topics.manifest("f", "digits"),
    topics.blob_chunk("f", "0f" * 32, 12),
    topics.packed_chunk("f", topics.PackedWeights("digits", 15, 12), 1),
    topics.packed_chunk("f", topics.PackedWeights("digits", 15, None), 0),
    topics.session("f", "0", "pi"),
]
HOP_KEY = bytes(32)
FRAMES = [bytes.fromhex(vector["hex"]) for vector in json.loads((VECTORS / "sessions.json").read_text())]
OTHER_DTYPES = [b"F64", b"F16", b"BF16", b"F8_E4M3", b"F4", b"I64", b"BOOL", b"C64"]

SHAPES = [[5, 8], [], [300]]
LARGE_SHAPES = [[100, 200], [300]]
SOLVERS: Sequence[Solver] = ("means", "gaussian", "ridge")
PRECISIONS: Sequence[Precision] = ("float64", "float32", "float16", "int8")
FORMAT_BITS, OPTION_BITS = 0x60, 0x1F
SIGNS_IN_BITS = (0x69, 0x6D)
DIFFERENCE_FORMAT_BITS = 0x20
REPEATED_BYTES = MAX_CBOR_ITEMS + KIB
ACTIVATION_WIRES = ("float32", "float16", "int8", "int4")
ACTIVATION_FORMAT_BITS = 0x20
ACTIVATION_ROWS, ACTIVATION_SHAPE = 3, (4, 5)
LARGE_ACTIVATIONS = 32, (16, 7, 7)
BASE = np.random.default_rng(3).standard_normal(341).astype(np.float32)
LARGE_BASE = np.random.default_rng(3).standard_normal(20_300).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Target:
    """Takes any bytes; whatever it raises is a finding. `seeds` are inputs that it takes well."""

    check: Callable[[bytes], None]
    seeds: list[bytes]


def accepted(decode: Callable[[], object]) -> object:
    """The decoded value, or None for a refusal."""
    try:
        return decode()
    except (ProtocolError, ConfigurationError) as error:
        assert str(error)
        return None


def check_envelope(data: bytes) -> None:
    """Any message."""
    envelope = accepted(lambda: read_envelope(data, 1000))
    if envelope is not None:
        assert accepted(lambda: envelope.verify(VERIFY_KEY, TOPICS[0])) is None


def check_moved_message(data: bytes) -> None:
    """What is read is written back as it was; what a device has signed itself is no such message."""
    moved = accepted(lambda: read_moved(data))
    assert moved is None or write_moved(moved) == data


def check_envelope_inside(data: bytes) -> None:
    """The first bytes are the entry in the protected header; the rest is the payload, and its digest is right."""
    payload = data[8:]
    header = [
        data[0] % (len(PAYLOAD_TYPES) + 2) if data else 0,
        int.from_bytes(data[1:8], "big"),
        "digits",
        3,
        digest(payload),
    ]
    protected = cbor.encode({1: -19, 4: bytes(8), -70001: header})
    envelope = accepted(lambda: read_envelope(b"\xd2" + cbor.encode([protected, {}, payload, bytes(64)]), 1000))
    if len(data) < 800:
        assert (envelope is not None) == (header[0] in KINDS)
    if envelope is not None:
        check_payload(bytes([envelope.header.kind.number - 1]) + payload)


def check_payload(data: bytes) -> None:
    """The first byte names the kind; what is read is written back as it was."""
    kind = PAYLOAD_TYPES[data[0] % len(PAYLOAD_TYPES)] if data else Update
    payload = accepted(lambda: decode_payload(data[1:], kind))
    if payload is not None:
        assert accepted(lambda: decode_payload(encode_payload(payload), kind)) is not None


def check_cbor(data: bytes) -> None:
    """A value has one encoding."""
    try:
        value = cbor.decode(data, "item")
    except ProtocolError:
        return
    assert cbor.encode(value) == data


def check_payload_memory(data: bytes) -> None:
    """Never more than twice the declared bound, as it is and as the items of a long array."""
    items = data * (REPEATED_BYTES // max(1, len(data)) + 1)
    for message in (data, b"\x9a" + len(items).to_bytes(4, "big") + items):
        tracemalloc.start()
        accepted(lambda message=message: decode_payload(message, Update))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 2 * cbor.memory_bound(len(message)), f"{peak} bytes"


def check_encrypted_update(data: bytes) -> None:
    """The whole payload as it came, and then as what an honest device would have encrypted."""
    for payload in (data, encrypt_payload(SIGNING_KEY, VERIFY_KEY, 1, data)):
        envelope = Envelope(Header(ENCRYPTED_UPDATE, 1, "digits", 3, bytes(16)), bytes(8), payload, b"", bytes(64))
        accepted(lambda envelope=envelope: decrypt_payload(envelope, (SIGNING_KEY,)))


def check_update(data: bytes) -> None:
    """What is accepted can be added to a vector."""
    update = accepted(lambda: decode_update(data, SHAPES))
    if update is not None:
        assert update.indices.size == update.values.size
        assert (np.diff(update.indices) > 0).all()
        assert np.isfinite(update.values).all()
        with np.errstate(over="ignore"):
            update.add_to(np.zeros(341, np.float32))


def check_statistics(data: bytes) -> None:
    """The first byte says how many; what is accepted is written as it came, behind the update in front of it."""
    count, packed = data[0] if data else 0, data[1:]
    changes = accepted(lambda: read_statistics(packed, count))
    if changes is not None:
        assert changes.size == count
        assert without_statistics(packed, count) + write_statistics(changes) == packed


def check_class_statistics(data: bytes) -> None:
    """The first byte chooses what they are for; what is accepted is finite, and takes as many bytes again."""
    if not data:
        return
    solver, precision = SOLVERS[data[0] % len(SOLVERS)], PRECISIONS[data[0] // len(SOLVERS) % len(PRECISIONS)]
    read = accepted(lambda: decode_class_statistics(data[1:], 3, 2, precision, solver))
    if read is not None:
        assert np.isfinite(read.means).all()
        assert np.isfinite(read.spread).all()
        assert len(read.encode(precision, solver)) == len(data) - 1


def check_update_inside(data: bytes) -> None:
    """The first byte chooses quantisation, order and container, of the right format."""
    if data:
        check_update(bytes([FORMAT_BITS | data[0] & OPTION_BITS]) + data[1:])


def check_update_memory(data: bytes) -> None:
    """Never more than twice the declared bound, however the decoding ends."""
    tracemalloc.start()
    accepted(lambda: decode_update(data, LARGE_SHAPES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * memory_bound(LARGE_SHAPES), f"{peak} bytes"


def check_updates_together(data: bytes) -> None:
    """The first byte chooses between the forms that are decoded together; each is as it is alone."""
    if not data:
        return
    packed = [bytes([SIGNS_IN_BITS[data[0] >> 2 & 1]]) + data[1:], USUAL_UPDATE, bytes([SIGNS_IN_BITS[0]]) + data[1:-1]]
    for update, together in zip(packed, decode_together(packed, SHAPES), strict=True):
        alone = accepted(lambda update=update: decode_update(update, SHAPES))
        if together is not None:
            assert np.array_equal(together.indices, alone.indices)
            assert np.array_equal(together.values.view(np.uint32), alone.values.view(np.uint32))
        elif update[0] in SIGNS_IN_BITS and len(update) <= MAX_PACKED_BYTES:
            assert alone is None or not alone.indices.size


def check_updates_together_memory(data: bytes) -> None:
    """Beside what is decoded, never more than the declared bound, however many there are."""
    packed = [bytes([SIGNS_IN_BITS[0]]) + data[:MAX_PACKED_BYTES]] * (1 + WORKING_BYTES // 128 // (len(data) + 1))
    tracemalloc.start()
    decoded = decode_together(packed, LARGE_SHAPES)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - held <= WORKING_BYTES, f"{peak - held} bytes for {len(decoded)} updates of {len(data)} bytes"


def check_mqtt_traffic(data: bytes) -> None:
    """Cut in two anywhere, a broker's bytes give the same; the first byte says where and in which version."""
    stream = data[1:]
    cut = (data[0] >> 1) % (len(stream) + 1) if data else 0
    found = []
    for parts in ([stream], [stream[:cut], stream[cut:]]):
        divider = TrafficDivider(mqtt5=bool(data[:1] > b"\x7f"), max_packet_bytes=KIB)
        try:
            others = b"".join(divider.divide(part) for part in parts)
            found.append((divider.take(), others))
        except MalformedPacketError:
            found.append(None)
    assert found[0] == found[1]


def check_activations(data: bytes) -> None:
    """The first byte chooses the format and what it is announced as; what is accepted is finite, and packs again."""
    if not data:
        return
    wire = ACTIVATION_WIRES[data[0] & 0x03]
    for packed in (data[1:], bytes([ACTIVATION_FORMAT_BITS | data[0] & OPTION_BITS]) + data[1:]):
        values = accepted(lambda packed=packed: unpack_rows(packed, wire, ACTIVATION_ROWS, ACTIVATION_SHAPE))
        if values is not None:
            assert values.shape == (ACTIVATION_ROWS, *ACTIVATION_SHAPE)
            assert np.isfinite(values).all()
            again = pack_gradient(values, wire, "dense", 1.0, np.random.default_rng(1))
            assert np.isfinite(unpack_rows(again, wire, ACTIVATION_ROWS, ACTIVATION_SHAPE)).all()


def check_activations_memory(data: bytes) -> None:
    """Never more than the declared bound, however it ends."""
    tracemalloc.start()
    for wire in ACTIVATION_WIRES:
        accepted(lambda wire=wire: unpack_rows(data, wire, *LARGE_ACTIVATIONS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= activations_bound(*LARGE_ACTIVATIONS), f"{peak} bytes"


def check_difference(data: bytes) -> None:
    """What is accepted leads to finite weights, from a version and from nothing."""
    for base in (BASE, None):
        weights = accepted(lambda base=base: apply_difference(base, data, SHAPES))
        assert weights is None or (weights.size == BASE.size and np.isfinite(weights).all())


def check_difference_inside(data: bytes) -> None:
    """The first byte chooses the form, of the right format."""
    if data:
        check_difference(bytes([DIFFERENCE_FORMAT_BITS | data[0] & OPTION_BITS]) + data[1:])


def check_difference_memory(data: bytes) -> None:
    """Never more than twice the declared bound, however it ends."""
    tracemalloc.start()
    accepted(lambda: apply_difference(LARGE_BASE, data, LARGE_SHAPES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * difference_bound(LARGE_SHAPES), f"{peak} bytes"


def check_weights(data: bytes) -> None:
    """A vector of the right length."""
    vector = accepted(lambda: read_weights(data, DIGITS.parameters))
    assert vector is None or (vector.size == DIGITS.parameter_count and np.isfinite(vector).all())


def check_description(data: bytes) -> None:
    """task.json."""
    description = accepted(lambda: parse_description(data))
    assert description is None or description.parameter_count >= 1


def check_document(data: bytes) -> None:
    """Files that a person writes, in both forms."""
    accepted(lambda: parse_with_paths(data, BrokerSettings, "broker"))
    for form in ("toml", "json"):
        accepted(lambda form=form: parse_document(data, TaskDescription, "task", form))


def check_topic(data: bytes) -> None:
    """What is read from a topic names that topic again."""
    text = data.decode("latin-1")
    device, blob = accepted(lambda: topics.device_of(text)), accepted(lambda: topics.blob_of(text))
    if device is not None:
        assert topics.check_name("device", device[0]) == device[0]
    if blob is not None:
        assert topics.blob_chunk(text.split("/")[2], *blob) == text
    wanted = accepted(lambda: topics.chunk_of(text))
    if wanted is not None:
        assert topics.chunk(text.split("/")[2], *wanted) == text
    accepted(lambda: topics.check_name("task", text))


def check_frame(data: bytes) -> None:
    """What is read is written again as it was; an assembly holds no more than it may, however chunks contradict."""
    frame = accepted(lambda: read_frame(data))
    if frame is not None:
        assert tagged_anew(write_frame(frame, HOP_KEY), HOP_KEY) == tagged_anew(data, HOP_KEY)
        assert is_tagged(write_frame(frame, HOP_KEY), HOP_KEY)


def check_sessions(data: bytes) -> None:
    """Whatever comes in a device's name, or to a device or helper in the relay's, is taken or refused; nobody ends."""
    world = World()
    world.open(world.devices[0])
    for machine in world.machines:
        accepted(lambda machine=machine: world.relay.receive(machine.party.topic, data, world.now))
    accepted(lambda: world.devices[0].end.receive(data, world.now))
    accepted(lambda: world.helpers[0].sessions.receive(data, world.now))
    assert world.devices[0].end.state is State.OPENING
    assert len(world.relay.book) == 0


def check_assembly(data: bytes) -> None:
    """Chunks in any order, four bytes each: number, index, count and length. A message is put together of `count` of
    them, or not at all.
    """
    assembly = Assembly(lambda frame: frame.body)
    for number, index, count, length in zip(*[iter(data)] * 4, strict=False):
        frame = Frame(
            FrameType.CONTENT, bytes(16), Direction.FROM_DEVICE, 0, 0, number, index % 8, count % 8, b"x" * length
        )
        if frame.index < frame.count:
            message = accepted(lambda frame=frame: assembly.take(frame))
            assert message is None or len(message) <= frame.count * 255


def check_key(data: bytes) -> None:
    """Key files and configured public keys."""
    text = data.decode("latin-1")
    accepted(lambda: read_signing_key(text, "device.key"))
    accepted(lambda: read_verify_key(text, "coordinator_key", "`broker-coordinator key`"))


def packed_updates(shapes: list[list[int]]) -> list[bytes]:
    """Every quantisation with every form of positions."""
    generator = np.random.default_rng(1)
    delta = generator.standard_normal(sum(int(np.prod(shape)) for shape in shapes)).astype(np.float32)
    return [
        encode_update(delta, shapes, UpdatePlan(fraction, quantisation.name.lower(), selection), generator).packed
        for fraction, selection in ((0.01, "top_k"), (0.3, "top_k"), (0.1, "random_k"), (1.0, "dense"))
        for quantisation in Quantisation
    ]


def packed_differences(base: np.ndarray, shapes: list[list[int]]) -> list[bytes]:
    """Both forms, from a version and from nothing, near and far."""
    grid = Grid.below(base, shapes, bits=2)
    return [
        encode_difference(start, grid.rounded(base * np.float32(scale), shapes), shapes, form)
        for start in (base, None)
        for form in (grid, None)
        for scale in (1, 1.01, 300)
    ]


def packed_activations(rows: int, shape: tuple[int, ...]) -> list[bytes]:
    """Every format, whole and of chosen entries, with and without numbers below 0."""
    values = np.random.default_rng(1).standard_normal((rows, *shape)).astype(np.float32)
    return [
        pack_gradient(array, wire, "top_k", keep, np.random.default_rng(1))
        for array in (values, np.maximum(values, 0))
        for wire in ACTIVATION_WIRES
        for keep in (1.0, 0.4, 0.02)
    ]


def broker_streams() -> list[bytes]:
    """One of each packet, in both versions of MQTT."""
    streams = []
    for first in (0x00, 0x80):
        load = [
            publication_packet("f/up", b"data", 7, retained=False, duplicate=repeated, mqtt5=bool(first))
            for repeated in (False, True)
        ]
        streams.append(bytes([first | 9]) + b"\xd0\x00".join(load) + acknowledgements([1, 2]))
    return streams


GAPS_AS_BYTES = bytes.fromhex("610202028201803f40")
PACKED = [*packed_updates(SHAPES), GAPS_AS_BYTES]
USUAL_UPDATE = next(update for update in PACKED if update[0] in SIGNS_IN_BITS)
THREE_SAMPLES = np.array([[1, 2], [3, 2], [-1, 0.5]]), np.array([0, 0, 2])
CLASS_STATISTICS = [
    bytes([place + len(SOLVERS) * row]) + ClassStatistics.of(*THREE_SAMPLES, 3, solver).encode(precision, solver)
    for place, solver in enumerate(SOLVERS)
    for row, precision in enumerate(PRECISIONS)
]
TARGETS: Mapping[str, Target] = {
    "envelope": Target(check_envelope, MESSAGES),
    "moved_message": Target(check_moved_message, [*MOVED, *MESSAGES]),
    "envelope_inside": Target(
        check_envelope_inside, [bytes([kind + 1]) + bytes(7) + payload for kind, payload in enumerate(PAYLOADS)]
    ),
    "payload": Target(check_payload, [bytes([kind]) + payload for kind, payload in enumerate(PAYLOADS)]),
    "payload_memory": Target(
        check_payload_memory, [*PAYLOADS, b"\x80", b"\xa0", b"\x81\x00", b"\x62ab", b"\xa1\x00\x00"]
    ),
    "encrypted_update": Target(
        check_encrypted_update, [*PAYLOADS, encrypt_payload(SIGNING_KEY, VERIFY_KEY, 1, PAYLOADS[5])]
    ),
    "cbor": Target(check_cbor, [*PAYLOADS, *(message[1:] for message in MESSAGES)]),
    "update": Target(check_update, PACKED),
    "update_inside": Target(check_update_inside, PACKED),
    "statistics": Target(
        check_statistics, [bytes([4]) + USUAL_UPDATE + write_statistics(np.float32([0, -1, 1e-9, 1e9]))]
    ),
    "class_statistics": Target(check_class_statistics, CLASS_STATISTICS),
    "update_memory": Target(check_update_memory, packed_updates(LARGE_SHAPES)[:12]),
    "updates_together": Target(check_updates_together, [update for update in PACKED if update[0] in SIGNS_IN_BITS]),
    "updates_together_memory": Target(
        check_updates_together_memory,
        [update[1:] for update in packed_updates(LARGE_SHAPES) if update[0] in SIGNS_IN_BITS],
    ),
    "masked_cohort": Target(check_masked, MASKED),
    "mqtt_traffic": Target(check_mqtt_traffic, broker_streams()),
    "packet_gate": Target(check_packet_gate, broker_streams()),
    "sample_line": Target(check_sample_line, SAMPLES),
    "activations": Target(
        check_activations,
        [packed[:1] + packed for packed in packed_activations(ACTIVATION_ROWS, ACTIVATION_SHAPE)],
    ),
    "activations_memory": Target(check_activations_memory, packed_activations(*LARGE_ACTIVATIONS)),
    "difference": Target(check_difference, packed_differences(BASE, SHAPES)),
    "difference_inside": Target(check_difference_inside, packed_differences(BASE, SHAPES)),
    "difference_memory": Target(check_difference_memory, packed_differences(LARGE_BASE, LARGE_SHAPES)),
    "weights": Target(
        check_weights, [WEIGHTS[:400], WEIGHTS, *(WEIGHTS.replace(b"F32", dtype, 1) for dtype in OTHER_DTYPES)]
    ),
    "description": Target(check_description, [TASK_JSON]),
    "document": Target(check_document, [TASK_JSON, BROKER_TOML]),
    "graph": Target(check_any_graph, GRAPHS),
    "frame": Target(check_frame, FRAMES),
    "sessions": Target(check_sessions, [*FRAMES, *MESSAGES[-10:]]),
    "assembly": Target(check_assembly, [bytes([1, 0, 2, 9, 2, 0, 1, 5, 1, 1, 2, 9]), bytes([1, 0, 2, 9, 1, 1, 3, 9])]),
    "topic": Target(check_topic, [topic.encode() for topic in TOPICS]),
    "key": Target(check_key, [b"0f" * 32, b"0f" * 32 + b"\n"]),
}
