"""One invariant for every decoder: whatever the bytes, the end is a value or one of the two errors of the contract."""

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol import cbor, topics
from fleet_protocol.bundle import DESCRIPTION_FILE, WEIGHTS_FILE, TaskDescription, UpdatePlan, parse_description
from fleet_protocol.codec import Quantisation, decode_update, encode_update, read_weights
from fleet_protocol.configuration import BrokerSettings, parse_document
from fleet_protocol.envelope import Kind, read_envelope, seal
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import SigningKey, read_signing_key, read_verify_key
from fleet_protocol.messages import (
    BlobChunk,
    BlobRequest,
    Enrolment,
    Manifest,
    Outcome,
    Presence,
    PresenceState,
    Receipt,
    Update,
    WeightsRequest,
    decode_payload,
    encode_payload,
)
from fleet_protocol.sealed_update import SealedUpdate

BUNDLE = Path(__file__).parents[2] / "models" / "digits" / "bundle"
TASK_JSON, WEIGHTS = (BUNDLE / DESCRIPTION_FILE).read_bytes(), (BUNDLE / WEIGHTS_FILE).read_bytes()
DIGITS = parse_description(TASK_JSON)
HASH = "0f" * 32
SHAPES = [[5, 8], [], [300]]
PARAMETERS = 341
BROKER_TOML = b'host = "broker.local"\nport = 8883\n[tls]\nauthority = "ca.pem"\n'

MESSAGES = [
    Enrolment(bytes(32), "pi", "0.1", ["digits"]),
    Presence(PresenceState.ONLINE, 3),
    Manifest(7, HASH, HASH),
    BlobRequest(bytes(32), [0, 1, 2]),
    BlobChunk(3, b"abc"),
    Update(16, 40, 0.731, bytes(20)),
    Receipt(bytes(16), Outcome.REJECTED, "too_stale", "made from version 1", 9, 3),
    WeightsRequest(7, 3, [0, 1]),
    SealedUpdate(bytes(8), bytes(60)),
]
ENVELOPES = [
    seal(SigningKey(bytes(32)), topics.up("f", "0", "pi"), kind, encode_payload(message), sequence=3, task="digits")
    for kind, message in zip(Kind, MESSAGES, strict=True)
]
PACKED = [
    encode_update(
        delta.astype(np.float32),
        SHAPES,
        UpdatePlan(keep_fraction, quantisation.name.lower(), selection),
        np.random.default_rng(2),
    ).packed
    for delta in (np.random.default_rng(1).standard_normal(PARAMETERS), np.ones(PARAMETERS))
    for keep_fraction, selection in ((0.01, "top_k"), (0.3, "top_k"), (0.1, "random_k"), (1.0, "dense"))
    for quantisation in Quantisation
]
TOPICS = [topics.up("f", "0", "pi"), topics.manifest("f", "digits"), topics.blob_chunk("f", HASH, 12)]


def damaged(valid: list[bytes]) -> st.SearchStrategy[bytes]:
    """Random bytes, or valid ones with a few stretches replaced, repeated, cut out or swapped for extremes."""
    stretch = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), st.binary(max_size=12) | extremes())

    def cut_in(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for where, length, instead in edits:
            start = int(where * (len(data) + 1))
            data = data[:start] + instead + data[start + length :]
        return data

    return st.binary(max_size=200) | st.builds(
        cut_in, st.sampled_from(valid), st.lists(stretch, min_size=1, max_size=4)
    )


def extremes() -> st.SearchStrategy[bytes]:
    return st.sampled_from(
        [b"\xff" * 8, bytes(8), b"\x80" * 6, struct.pack("<f", math.nan), b"\x1b" + b"\xff" * 8, b"["]
    )


def holds(decode: Callable[[bytes], object], data: bytes) -> object:
    """The decoded value, None for a refusal; any other exception is the failure that is looked for."""
    try:
        return decode(data)
    except (ProtocolError, ConfigurationError) as error:
        assert str(error)
        return None


fuzzed = settings(max_examples=800, deadline=None, database=None)


@given(damaged(ENVELOPES))
@fuzzed
def test_envelope(data):
    envelope = holds(lambda data: read_envelope(data, 300), data)
    if envelope is not None:
        holds(lambda _: envelope.verify(SigningKey(bytes(32)).verify_key, TOPICS[0]), data)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_payload(message):
    @given(damaged([encode_payload(message)]))
    @settings(fuzzed, max_examples=300)
    def holds_for(data):
        decoded = holds(lambda data: decode_payload(data, type(message)), data)
        assert decoded is None or encode_payload(decoded) is not None

    holds_for()


@given(damaged([encode_payload(message) for message in MESSAGES]))
@fuzzed
def test_cbor_has_one_encoding(data):
    try:
        value = cbor.decode(data, "item")
    except ProtocolError:
        return
    assert cbor.encode(value) == data


@given(damaged(PACKED))
@settings(fuzzed, max_examples=3_000)
def test_update(data):
    update = holds(lambda data: decode_update(data, SHAPES), data)
    if update is not None:
        assert update.indices.size == update.values.size
        assert (np.diff(update.indices) > 0).all()
        assert ((update.indices >= 0) & (update.indices < PARAMETERS)).all()
        assert np.isfinite(update.values).all()
        update.add_to(np.zeros(PARAMETERS, np.float32))


DTYPES = [b"F32", b"F64", b"F16", b"BF16", b"F8_E4M3", b"F4", b"I64", b"BOOL", b"C64"]


@given(damaged([WEIGHTS, WEIGHTS[:300]]), st.sampled_from(DTYPES), st.sampled_from([b"64", b"0", b"-1", b"1e9"]))
@fuzzed
def test_weights(data, dtype, dimension):
    for variant in (data, data.replace(b"F32", dtype, 1), data.replace(b"64", dimension, 1)):
        vector = holds(lambda data: read_weights(data, DIGITS.parameters), variant)
        assert vector is None or (np.isfinite(vector).all() and vector.size == DIGITS.parameter_count)


@given(damaged([TASK_JSON]))
@fuzzed
def test_description(data):
    description = holds(parse_description, data)
    assert description is None or description.parameter_count >= 1


@given(damaged([TASK_JSON, BROKER_TOML]), st.sampled_from(["json", "toml"]))
@fuzzed
def test_document(data, form):
    holds(lambda data: parse_document(data, BrokerSettings, "broker", form), data)
    holds(lambda data: parse_document(data, TaskDescription, "task", form), data)


@given(st.text(max_size=100) | damaged([topic.encode() for topic in TOPICS]).map(lambda data: data.decode("latin-1")))
@fuzzed
def test_topic(text):
    device = holds(topics.device_of, text)
    if device is not None:
        assert topics.check_name("device", device[0]) == device[0]
    blob = holds(topics.blob_of, text)
    if blob is not None:
        assert topics.blob_chunk(text.split("/")[2], *blob) == text
    holds(lambda text: topics.check_name("task", text), text)


@given(st.text(max_size=80) | st.text("0123456789abcdefABCDEF \n", min_size=60, max_size=70))
@fuzzed
def test_key(text):
    holds(lambda text: read_signing_key(text, 0o600, "device.key"), text)
    holds(lambda text: read_verify_key(text, "coordinator_key"), text)
