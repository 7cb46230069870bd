"""Updates that only their coordinator can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import SealedBox

from edge_agent.core.outbox import OutboxRow
from edge_agent.shell.connection.identity import Identity
from fleet_protocol.encryption import BOX_OVERHEAD_BYTES, decrypt_payload, encrypt_payload
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import ENCRYPTED_UPDATE, EncryptedPayload, Update, decode_payload, encode_payload
from fleet_protocol.kinds import UPDATE as UPDATE_KIND
from fleet_protocol.limits import MAX_SEQUENCE, MAX_UPDATE_BYTES

DEVICE, COORDINATOR, OTHER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
UPDATE = Update(16, 40, 0.75, b"packed" * 20)


def encrypted_by(identity_key: SigningKey, coordinator: SigningKey, payload: bytes = encode_payload(UPDATE)) -> bytes:
    identity = Identity("home", "0", "pi", identity_key, write_verify_key(coordinator.verify_key), encrypt_updates=True)
    number, recipient = identity.address(UPDATE_KIND)
    return identity.sign_row(OutboxRow(1, number, "digits", "0f" * 32, 3, recipient, payload))


def refusal(data: bytes, *keys: SigningKey) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_payload(decrypt_payload(read_envelope(data, MAX_UPDATE_BYTES), keys), Update)
    return caught.value


def test_coordinator_reads_what_the_device_encrypted_and_the_signature_covers_the_box():
    data = encrypted_by(DEVICE, COORDINATOR)
    envelope = read_envelope(data, MAX_UPDATE_BYTES)
    envelope.verify(DEVICE.verify_key, "edgeflock/v1/home/0/pi/up")
    assert envelope.header.kind is ENCRYPTED_UPDATE
    assert decode_payload(decrypt_payload(envelope, (COORDINATOR,)), Update) == UPDATE
    assert UPDATE.packed not in data
    assert encode_payload(UPDATE)[:8] not in data


def box_of(encrypted: bytes) -> bytes:
    return decode_payload(encrypted, EncryptedPayload).box


def test_size_is_known_before_the_box_is_opened():
    assert len(box_of(encrypt_payload(DEVICE, COORDINATOR.verify_key, 1, b"payload"))) == 7 + BOX_OVERHEAD_BYTES


def test_same_payload_under_the_same_number_is_the_same_message_whenever_it_is_made():
    assert encrypted_by(DEVICE, COORDINATOR) == encrypted_by(SigningKey(bytes(DEVICE)), COORDINATOR)


def test_no_two_messages_share_an_ephemeral_key():
    payload = encode_payload(UPDATE)
    messages = [
        (sender, recipient.verify_key, sequence, content)
        for sender in (DEVICE, OTHER)
        for recipient in (COORDINATOR, OTHER)
        for sequence in (1, 2)
        for content in (payload, payload[:-1], payload + b"\x00", b"")
    ]
    ephemeral_keys = {box_of(encrypt_payload(*message))[:32] for message in messages}
    assert len(ephemeral_keys) == len(messages)


@given(payload=st.binary(max_size=200), sequence=st.integers(0, MAX_SEQUENCE))
def test_libsodium_opens_every_box(payload, sequence):
    box = box_of(encrypt_payload(DEVICE, COORDINATOR.verify_key, sequence, payload))
    assert SealedBox(COORDINATOR.to_curve25519_private_key()).decrypt(box) == payload


def test_other_coordinator_says_whose_it_is_and_a_reader_without_key_too():
    data = encrypted_by(DEVICE, OTHER)
    for keys in ((COORDINATOR,), ()):
        error = refusal(data, *keys)
        assert error.reason is Reason.WRONG_RECIPIENT
        assert "coordinator_key" in error.detail


@pytest.mark.parametrize("length", [0, 10, 47, 48, 60])
def test_box_that_does_not_open_is_malformed(length):
    box = SealedBox(COORDINATOR.verify_key.to_curve25519_public_key()).encrypt(encode_payload(UPDATE))
    data = read_envelope(encrypted_by(DEVICE, COORDINATOR), MAX_UPDATE_BYTES)
    encrypted = decode_payload(data.payload, EncryptedPayload)
    for altered in (box[:length], bytes(length), box[:-1] + bytes([box[-1] ^ 1])):
        payload = encode_payload(EncryptedPayload(encrypted.recipient, altered))
        with pytest.raises(ProtocolError) as caught:
            decrypt_payload(type(data)(data.header, data.key_id, payload, b"", b""), (COORDINATOR,))
        assert caught.value.reason is Reason.MALFORMED


def test_box_that_holds_no_update_is_malformed():
    assert refusal(encrypted_by(DEVICE, COORDINATOR, b"\x01\x02"), COORDINATOR).reason is Reason.MALFORMED


@pytest.mark.parametrize("encrypt_updates", [True, False])
@pytest.mark.parametrize("key", ["02" + 31 * "00", "01" + 31 * "00", 32 * "ff"])
def test_pinned_key_that_is_no_point_of_the_curve_is_said_at_the_start(key, encrypt_updates):
    """Nobody could sign with it either: a device would wait for its coordinator for ever."""
    with pytest.raises(
        ConfigurationError, match=f"coordinator_key {key} is no valid Ed25519 public key; copy it again"
    ):
        Identity("home", "0", "pi", DEVICE, key, encrypt_updates=encrypt_updates)
