"""Encrypts payloads for the coordinator, as libsodium sealed boxes, for brokers run by others.

The box is for the X25519 form of the coordinator's Ed25519 key, which devices pin anyway. It does not authenticate its
sender: the envelope's signature does, which covers the box. libsodium draws a new ephemeral key for every box; here it
follows from the device's secret, so that the same payload under the same number is the same message whenever it is made
(docs/decisions/boxes-made-again.md).
"""

import hashlib
from typing import Final

from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaClRuntimeError
from nacl.public import Box, PrivateKey, SealedBox

from fleet_protocol.envelope import Envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.keys import KeyRing, SigningKey, VerifyKey, key_id
from fleet_protocol.kinds import EncryptedPayload, decode_payload, encode_payload

BOX_OVERHEAD_BYTES: Final = 48
"""An ephemeral public key and an authenticator around as many bytes as the payload has."""
_EPHEMERAL_KEY_USE: Final = b"edgeflock/box/1\x00"
"""Sets this use of a device's seed apart from every other; 16 bytes."""
_SEQUENCE_BYTES: Final = 8


def encrypt_payload(sender: SigningKey, recipient: VerifyKey, sequence: int, payload: bytes) -> bytes:
    """The payload of an encrypted kind, from that of its content. The same arguments give the same bytes.

    Two payloads, or one under two numbers, share no ephemeral key: that is a keyed hash of all the arguments.
    """
    ephemeral = _ephemeral_key(sender, recipient, sequence, payload)
    return encode_payload(EncryptedPayload(key_id(recipient), _sealed_box(ephemeral, recipient, payload)))


def _ephemeral_key(sender: SigningKey, recipient: VerifyKey, sequence: int, payload: bytes) -> PrivateKey:
    """Keyed BLAKE2b (RFC 7693) as a pseudorandom function under the device's seed, of inputs of fixed length and one
    last of any.
    """
    secret = hashlib.blake2b(key=bytes(sender), person=_EPHEMERAL_KEY_USE, digest_size=PrivateKey.SIZE)
    secret.update(bytes(recipient) + sequence.to_bytes(_SEQUENCE_BYTES, "big") + payload)
    return PrivateKey(secret.digest())


def _sealed_box(ephemeral: PrivateKey, recipient: VerifyKey, payload: bytes) -> bytes:
    """What libsodium's `crypto_box_seal` writes where it draws this ephemeral key."""
    public = bytes(ephemeral.public_key)
    curve = recipient.to_curve25519_public_key()
    nonce = hashlib.blake2b(public + bytes(curve), digest_size=Box.NONCE_SIZE).digest()
    return public + Box(ephemeral, curve).encrypt(payload, nonce).ciphertext


def check_recipient(recipient: VerifyKey) -> None:
    """Check that a payload can be encrypted for a key.

    Raises:
        ConfigurationError: the 32 bytes are not a point of the curve.
    """
    try:
        recipient.to_curve25519_public_key()
    except NaClRuntimeError as error:
        raise ConfigurationError(
            f"coordinator_key {bytes(recipient).hex()} is no valid Ed25519 public key;"
            " copy it again from the coordinator: broker-coordinator key prints it"
        ) from error


def decrypt_payload(envelope: Envelope, keys: KeyRing) -> bytes:
    """An envelope's payload, decrypted if it is encrypted for one of the coordinator's `keys`.

    Raises:
        ProtocolError: `WRONG_RECIPIENT`: encrypted for another key. `MALFORMED`: no box, or one that can't be
        decrypted.
    """
    if envelope.header.kind.content is None:
        return envelope.payload
    return _decrypt(decode_payload(envelope.payload, EncryptedPayload), keys)


def _decrypt(encrypted: EncryptedPayload, keys: KeyRing) -> bytes:
    key = next((key for key in keys if key_id(key.verify_key) == encrypted.recipient), None)
    if key is None:
        here = f"this one's is {key_id(keys[0].verify_key).hex()}" if keys else "there is none here"
        raise ProtocolError(
            Reason.WRONG_RECIPIENT,
            f"encrypted for the coordinator key {encrypted.recipient[:8].hex()}, {here};"
            " set coordinator_key on the device to this coordinator's",
        )
    try:
        return SealedBox(key.to_curve25519_private_key()).decrypt(encrypted.box)
    except (CryptoError, ValueError, TypeError) as error:
        raise ProtocolError(Reason.MALFORMED, "the box can't be decrypted: it was altered or cut") from error
