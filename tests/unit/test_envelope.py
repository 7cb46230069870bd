"""The envelope against a second implementation: CBOR heads by struct, Ed25519 by the package `cryptography`."""

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import topics
from fleet_protocol.envelope import digest, read_envelope, sign_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import KINDS, UPDATE, Update, encode_payload
from fleet_protocol.limits import MAX_SEQUENCE, MAX_UPDATE_BYTES

SEED = bytes(range(32))
KEY = SigningKey(SEED)
SECOND_OPINION = Ed25519PrivateKey.from_private_bytes(SEED)
KEY_ID = hashlib.sha256(SECOND_OPINION.public_key().public_bytes_raw()).digest()[:8]
TOPIC = topics.up("greenhouse", "0", "kitchen-pi")
PAYLOAD = b"\x01\x02\x03"
LIMIT = 1000


def head(major: int, value: int) -> bytes:
    """An initial byte of CBOR with its shortest argument (RFC 8949, section 3)."""
    if value < 24:
        return struct.pack(">B", major << 5 | value)
    code, form = next((c, f) for c, f in ((24, "B"), (25, "H"), (26, "I"), (27, "Q")) if value < 256 ** (1 << c - 24))
    return struct.pack(">B" + form, major << 5 | code, value)


def integer(value: int) -> bytes:
    return head(0, value) if value >= 0 else head(1, -1 - value)


def byte_string(value: bytes) -> bytes:
    return head(2, len(value)) + value


def text(value: str) -> bytes:
    return head(3, len(value.encode())) + value.encode()


def array(*items: bytes) -> bytes:
    return head(4, len(items)) + b"".join(items)


def mapping(*entries: bytes) -> bytes:
    return head(5, len(entries) // 2) + b"".join(entries)


def header(
    kind: bytes = integer(UPDATE.number),
    sequence: bytes = integer(41),
    task: bytes = text("digits"),
    base_version: bytes = integer(7),
    payload_digest: bytes = byte_string(digest(PAYLOAD)),
) -> bytes:
    return array(kind, sequence, task, base_version, payload_digest)


ALGORITHM = (integer(1), integer(-19))
IDENTIFIER = (integer(4), byte_string(KEY_ID))
HEADER = (integer(-70001), header())
PROTECTED = mapping(*ALGORITHM, *IDENTIFIER, *HEADER)


def sign(protected: bytes, payload: bytes, topic: str = TOPIC) -> bytes:
    """The signature over the Sig_structure of RFC 9052, section 4.4, built by hand."""
    structure = array(text("Signature1"), byte_string(protected), byte_string(topic.encode()), byte_string(payload))
    return SECOND_OPINION.sign(structure)


def assemble(
    protected: bytes = PROTECTED, *, unprotected: bytes = mapping(), payload: bytes = PAYLOAD, tag: bytes = head(6, 18)
) -> bytes:
    """An envelope that differs from ours where told, under a signature that holds for what it says."""
    signature = sign(protected, payload)
    return tag + array(byte_string(protected), unprotected, byte_string(payload), byte_string(signature))


def with_header(entry: bytes) -> bytes:
    return assemble(mapping(*ALGORITHM, *IDENTIFIER, integer(-70001), entry))


def refusal_of(data: bytes, topic: str = TOPIC, limit: int = LIMIT) -> Reason:
    with pytest.raises(ProtocolError) as caught:
        read_envelope(data, limit).verify(KEY.verify_key, topic)
    return caught.value.reason


def signed() -> bytes:
    return sign_envelope(KEY, TOPIC, UPDATE, PAYLOAD, sequence=41, task="digits", base_version=7)


def test_envelope_is_byte_for_byte_what_the_rfc_says():
    assert signed() == assemble()


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", max_size=48)
counts = st.integers(0, MAX_SEQUENCE)


@given(
    st.sampled_from(list(KINDS.values())),
    st.binary(max_size=300),
    st.text(max_size=100),
    st.tuples(counts, names, counts),
)
def test_what_was_signed_is_read_and_another_implementation_verifies_it(kind, payload, topic, numbers):
    sequence, task, base_version = numbers
    signed = sign_envelope(KEY, topic, kind, payload, sequence=sequence, task=task, base_version=base_version)
    envelope = read_envelope(signed, LIMIT)
    envelope.verify(KEY.verify_key, topic)
    found = envelope.header
    assert (found.kind, found.sequence, found.task, found.base_version) == (kind, *numbers)
    assert (envelope.payload, envelope.key_id) == (payload, KEY_ID)
    assert envelope.signature == sign(envelope.protected, payload, topic)


def test_no_bit_can_change_unnoticed():
    original = signed()
    for position in range(len(original)):
        for bit in range(8):
            altered = bytearray(original)
            altered[position] ^= 1 << bit
            assert refusal_of(bytes(altered)) in {Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.UNKNOWN_KIND}


def test_truncated_anywhere_is_refused():
    original = signed()
    assert {refusal_of(original[:length]) for length in range(len(original))} == {Reason.MALFORMED}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(assemble(mapping(integer(1), integer(-8), *IDENTIFIER, *HEADER)), id="EdDSA by its old number"),
        pytest.param(assemble(mapping(integer(1), integer(-7), *IDENTIFIER, *HEADER)), id="ES256"),
        pytest.param(assemble(mapping(integer(1), text("Ed25519"), *IDENTIFIER, *HEADER)), id="algorithm as text"),
        pytest.param(assemble(mapping(*IDENTIFIER, *HEADER)), id="no algorithm"),
        pytest.param(assemble(mapping(*ALGORITHM, *HEADER)), id="no key id"),
        pytest.param(assemble(mapping(*ALGORITHM, *IDENTIFIER)), id="no header entry"),
        pytest.param(assemble(mapping(*ALGORITHM, integer(4), byte_string(KEY_ID[:7]), *HEADER)), id="short key id"),
        pytest.param(assemble(mapping(*ALGORITHM, integer(4), text("kitchen1"), *HEADER)), id="key id as text"),
        pytest.param(assemble(mapping(*ALGORITHM, *ALGORITHM, *IDENTIFIER, *HEADER)), id="duplicate entry"),
        pytest.param(assemble(mapping(*ALGORITHM, integer(3), integer(0), *IDENTIFIER, *HEADER)), id="extra entry"),
        pytest.param(assemble(mapping(*IDENTIFIER, *ALGORITHM, *HEADER)), id="unsorted entries"),
        pytest.param(assemble(mapping(*IDENTIFIER, *HEADER, b"\xf5", integer(-19))), id="true as the key 1"),
        pytest.param(assemble(mapping(*ALGORITHM, *IDENTIFIER, *HEADER, b"\xf5", integer(0))), id="boolean key"),
        pytest.param(assemble(mapping(b"\x18\x01", integer(-19), *IDENTIFIER, *HEADER)), id="key in a longer form"),
        pytest.param(assemble(b"\xbf" + PROTECTED[1:] + b"\xff"), id="indefinite protected map"),
        pytest.param(assemble(PROTECTED + b"\x00"), id="trailing bytes in the protected header"),
        pytest.param(assemble(b""), id="empty protected header"),
        pytest.param(assemble(unprotected=mapping(*IDENTIFIER)), id="unprotected header"),
        pytest.param(assemble(unprotected=array()), id="unprotected header of another type"),
        pytest.param(assemble(tag=head(6, 17)), id="another tag"),
        pytest.param(assemble(tag=b"\xd8\x12"), id="tag in a longer form"),
        pytest.param(assemble(tag=b""), id="no tag"),
        pytest.param(assemble(tag=head(6, 18) * 2), id="tagged twice"),
        pytest.param(assemble() + b"\x00", id="trailing bytes"),
        pytest.param(assemble() + assemble(), id="two envelopes"),
        pytest.param(b"\xd2\x98\x04" + assemble()[2:], id="array length in a longer form"),
        pytest.param(b"\xd2\x9f" + assemble()[2:] + b"\xff", id="indefinite array"),
        pytest.param(with_header(header(kind=b"\xf5")), id="kind is a boolean"),
        pytest.param(with_header(header(sequence=integer(-1))), id="negative sequence"),
        pytest.param(with_header(header(sequence=integer(2**63))), id="sequence beyond a database column"),
        pytest.param(with_header(header(sequence=b"\xf9\x51\x20")), id="sequence is a float"),
        pytest.param(with_header(header(base_version=integer(2**63))), id="version beyond a database column"),
        pytest.param(with_header(header(task=text("x" * 49))), id="task name too long"),
        pytest.param(with_header(header(task=b"\x62\xff\xff")), id="task is not UTF-8"),
        pytest.param(with_header(header(payload_digest=byte_string(bytes(16)))), id="wrong digest"),
        pytest.param(with_header(header(payload_digest=byte_string(b""))), id="empty digest"),
        pytest.param(with_header(header()[:-17]), id="header entry too short"),
        pytest.param(with_header(head(4, 6) + header()[1:] + integer(0)), id="header entry too long"),
        pytest.param(assemble(payload=PAYLOAD + b"\x00"), id="payload of another digest"),
    ],
)
def test_any_other_form_is_refused_although_its_signature_holds(data):
    assert refusal_of(data) is Reason.MALFORMED


def test_kind_of_a_later_release_is_named_as_unknown():
    assert refusal_of(with_header(header(kind=integer(99)))) is Reason.UNKNOWN_KIND


def test_message_moved_to_another_topic_is_refused():
    assert refusal_of(signed(), topics.up("greenhouse", "0", "cellar-pi")) is Reason.BAD_SIGNATURE


def test_message_of_another_key_is_refused():
    forged = sign_envelope(SigningKey.generate(), TOPIC, UPDATE, PAYLOAD, sequence=41)
    assert refusal_of(forged) is Reason.BAD_SIGNATURE


def test_payload_exchanged_together_with_its_digest_is_refused():
    other = b"another payload"
    protected = mapping(*ALGORITHM, *IDENTIFIER, integer(-70001), header(payload_digest=byte_string(digest(other))))
    signature = sign(PROTECTED, PAYLOAD)
    forged = head(6, 18) + array(byte_string(protected), mapping(), byte_string(other), byte_string(signature))
    assert refusal_of(forged) is Reason.BAD_SIGNATURE


def test_size_is_refused_before_anything_is_parsed():
    garbage = b"\xff" * 11
    assert refusal_of(garbage, limit=10) is Reason.TOO_LARGE
    assert refusal_of(garbage, limit=11) is Reason.MALFORMED


def test_realistic_update_carries_at_most_160_bytes_of_envelope():
    packed = bytes(1500)
    payload = encode_payload(Update(samples=5_000, steps=40, loss=0.731, packed=packed))
    update = sign_envelope(
        KEY, TOPIC, UPDATE, payload, sequence=100_000, task="handwritten-digits", base_version=100_000
    )
    assert len(update) - len(packed) <= 160
    read_envelope(update, MAX_UPDATE_BYTES)
