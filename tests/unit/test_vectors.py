"""The vectors in tests/vectors, both ways: what we write from the input, and what we read from the bytes."""

import hashlib
import json
import struct
from pathlib import Path

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fleet_protocol.codec import Grid, apply_difference, decode_update, encode_difference, encode_update, inspect_update
from fleet_protocol.codec.activations import pack_gradient, unpack_rows
from fleet_protocol.codec.container import open_container
from fleet_protocol.codec.difference import read_head
from fleet_protocol.codec.positions import ALL, BYTES, BYTES_BY_COLUMN, EXP_GOLOMB, RICE, SEEDED
from fleet_protocol.codec.selection import random_indices
from fleet_protocol.codec.update_codec import Stages
from fleet_protocol.encryption import decrypt_payload
from fleet_protocol.envelope import read_envelope, sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import KINDS, Update, decode_payload, encode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from fleet_protocol.sessions.secrecy import hop_key
from fleet_protocol.update_plan import UpdatePlan
from tests.vectors.sessions import session_vectors
from tests.vectors.write import message_vectors

FOLDER = Path(__file__).parents[1] / "vectors"


def read(name: str) -> list[dict]:
    return json.loads((FOLDER / f"{name}.json").read_text())


UPDATES, MESSAGES = read("updates"), read("messages")


def test_messages_are_those_that_the_writer_writes():
    assert json.loads(json.dumps(message_vectors())) == MESSAGES


@pytest.mark.parametrize("vector", UPDATES, ids=lambda vector: vector["name"])
def test_update(vector):
    given, packed = vector["input"], bytes.fromhex(vector["hex"])
    shapes, delta = given["shapes"], np.array(given["delta"], np.float32)
    plan = UpdatePlan(**{name: value for name, value in given.items() if name not in {"shapes", "delta"}})
    decoded = decode_update(packed, shapes)
    assert decoded.indices.tolist() == vector["indices"]
    assert decoded.values.tolist() == vector["values"]
    assert encode_update(delta, shapes, plan, np.random.default_rng(1)).packed == packed


def test_updates_show_every_form_that_the_format_has():
    forms = set()
    for vector in UPDATES:
        packed = bytes.fromhex(vector["hex"])
        first, body = open_container(packed, 10_000)
        stages = inspect_update(packed, vector["input"]["shapes"])[1]
        if first.positions_in_bits:
            count_is_usual, code = bool(body[0] >> 3 & 0x0F), None
            if count_is_usual:
                code = body[0] >> 2 & 1
            forms.add(("bits", stages.by_column, code))
        else:
            forms.add(("bytes", body[0], first.compressed))
    assert {stages_of(vector).quantisation for vector in UPDATES} == set(range(6))
    assert forms >= {("bits", False, RICE), ("bits", False, EXP_GOLOMB), ("bits", False, None)}
    assert {form[1] for form in forms if form[0] == "bytes"} == {ALL, SEEDED, BYTES, BYTES_BY_COLUMN}
    assert {form[1] for form in forms if form[0] == "bits"} == {False, True}
    assert any(form[2] for form in forms if form[0] == "bytes")


def stages_of(vector: dict) -> Stages:
    return inspect_update(bytes.fromhex(vector["hex"]), vector["input"]["shapes"])[1]


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_message(vector):
    given, data = vector["input"], bytes.fromhex(vector["hex"])
    key, payload = SigningKey(bytes.fromhex(given["signing_seed"])), bytes.fromhex(given["payload_hex"])
    header = {name: given[name] for name in ("sequence", "task", "base_version", "generation") if name in given}
    assert sign_envelope(key, given["topic"], KINDS[given["kind"]], payload, **header) == data

    envelope = read_envelope(data, MAX_CONTROL_BYTES)
    envelope.verify(key.verify_key, given["topic"])
    assert {name: getattr(envelope.header, name) for name in header} == header
    assert envelope.header.kind is KINDS[given["kind"]]
    assert encode_payload(decode_payload(envelope.payload, envelope.header.kind.payload)) == payload


def test_encrypted_update_is_opened_with_its_coordinator_key():
    (encrypted,) = (vector for vector in MESSAGES if vector["name"] == "encrypted_update")
    envelope = read_envelope(bytes.fromhex(encrypted["hex"]), MAX_CONTROL_BYTES)
    coordinator = SigningKey(bytes(range(32, 64)))
    assert decode_payload(decrypt_payload(envelope, (coordinator,)), Update) == Update(
        16, 40, 0.75, bytes.fromhex("41010254803f40")
    )


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_message_verifies_with_another_cbor_and_ed25519(vector):
    public_key = bytes(SigningKey(bytes.fromhex(vector["input"]["signing_seed"])).verify_key)
    protected, unprotected, payload, signature = cbor2.loads(bytes.fromhex(vector["hex"])).value
    signed = cbor2.dumps(["Signature1", protected, vector["input"]["topic"].encode(), payload])
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    assert unprotected == {}
    assert cbor2.loads(protected)[1] == -19


@pytest.mark.parametrize("vector", read("random_positions"), ids=lambda vector: str(vector["input"]))
def test_random_positions(vector):
    assert random_indices(**vector["input"]).tolist() == vector["indices"]


ACTIVATIONS = read("activations")


@pytest.mark.parametrize("vector", ACTIVATIONS, ids=lambda vector: vector["name"])
def test_activations(vector):
    given, packed = vector["input"], bytes.fromhex(vector["hex"])
    rows, *shape = given["shape"]
    values = np.array(given["values"], np.float32).reshape(rows, *shape)
    chosen = given["selection"], given["keep"], np.random.default_rng(1)
    assert pack_gradient(values, given["wire"], *chosen) == packed
    assert unpack_rows(packed, given["wire"], rows, shape).ravel().tolist() == vector["values"]


def test_activations_show_every_form_that_the_format_has():
    first = [bytes.fromhex(vector["hex"])[0] for vector in ACTIVATIONS]
    assert {byte & 0x03 for byte in first} == set(range(4))
    assert all({bool(byte & flag) for byte in first} == {False, True} for flag in (0x04, 0x08, 0x10))


DIFFERENCES = read("differences")


@pytest.mark.parametrize("vector", DIFFERENCES, ids=lambda vector: vector["name"])
def test_difference(vector):
    given, packed = vector["input"], bytes.fromhex(vector["hex"])
    base, target = (None if given[name] is None else np.array(given[name], np.float32) for name in ("base", "target"))
    grid = None if given["exponents"] is None else Grid(np.array(given["exponents"], np.int8))
    assert encode_difference(base, target, given["shapes"], grid) == packed
    assert apply_difference(base, packed, given["shapes"]).tobytes() == target.tobytes()


def test_differences_show_every_form_that_the_format_has():
    heads = [read_head(bytes.fromhex(vector["hex"])) for vector in DIFFERENCES]
    assert {(head.whole, head.on_grid) for head in heads} == {(a, b) for a in (False, True) for b in (False, True)}
    assert {head.planes for head in heads} >= {0, 1, 2, 4}


SESSIONS = read("sessions")


def test_sessions_are_those_that_the_writer_writes():
    assert session_vectors() == SESSIONS


@pytest.mark.parametrize("vector", SESSIONS, ids=lambda vector: vector["name"])
def test_frame_by_another_implementation(vector):
    """Keys, encryption and tag by the package cryptography and hashlib, from the words of docs/wire-format.md."""
    given = {name: bytes.fromhex(value) for name, value in vector["input"].items() if isinstance(value, str)}
    own, other = (X25519PrivateKey.from_private_bytes(given[f"{end}_secret"]) for end in ("device", "helper"))
    shared = own.exchange(other.public_key())
    transcript = given["session"] + b"".join(
        bytes(SigningKey(given[f"{end}_signing_seed"]).verify_key) + secret.public_key().public_bytes_raw()
        for end, secret in (("device", own), ("helper", other))
    )
    keys = [
        hashlib.blake2b(transcript, key=shared, person=b"edgeflock/ses/1" + end, digest_size=32).digest()
        for end in (b"d", b"h")
    ]
    assert [key.hex() for key in keys] == vector["session_keys"]

    data, hop = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["hop_key"])
    header, tag, body = data[:47], data[47:63], data[63:]
    assert tag == hashlib.blake2b(header + body[-16:], key=hop, digest_size=16).digest()
    fields = vector["input"]
    assert struct.unpack(">QHHQQ", header[19:]) == tuple(
        fields[name] for name in ("number", "index", "count", "offset", "settled")
    )
    if body:
        nonce = struct.pack(">QI", fields["number"], fields["index"])
        opened = ChaCha20Poly1305(keys[0]).decrypt(nonce, body, struct.pack(">H", fields["count"]))
        assert opened == given["content"]


def test_hop_key_is_that_of_both_sides():
    (given, *_) = (vector["input"] for vector in SESSIONS)
    device, coordinator = (SigningKey(bytes.fromhex(given[f"{end}_signing_seed"])) for end in ("device", "coordinator"))
    session = bytes.fromhex(given["session"])
    assert hop_key(coordinator, device.verify_key, session).hex() == SESSIONS[0]["hop_key"]
