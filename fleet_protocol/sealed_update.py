"""An update that only its coordinator can read: a libsodium sealed box around the payload, for brokers run by others.

The box is for the X25519 form of the coordinator's Ed25519 key, which devices pin anyway. It says nothing of who sealed
it: that is what the envelope's signature is for, which covers the box.
"""

from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaClRuntimeError
from nacl.public import SealedBox

from fleet_protocol.envelope import Envelope, Kind
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey, key_id
from fleet_protocol.messages import Update, decode_payload, encode_payload

BOX_OVERHEAD_BYTES: Final = 48
"""An ephemeral public key and an authenticator around as many bytes as the payload has."""


class SealedUpdate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`recipient` is the key id of the coordinator that can open `box`, which holds an update's payload."""

    recipient: bytes
    box: bytes


def seal_for(recipient: VerifyKey, payload: bytes) -> bytes:
    """The payload of a sealed update, from that of an open one; each call gives other bytes."""
    box = SealedBox(recipient.to_curve25519_public_key()).encrypt(payload)
    return encode_payload(SealedUpdate(key_id(recipient), box))


def check_recipient(recipient: VerifyKey) -> None:
    """See that something can be sealed for a key.

    Raises:
        ConfigurationError: 32 bytes are a key in form only if they are a point of the curve.
    """
    try:
        recipient.to_curve25519_public_key()
    except NaClRuntimeError as error:
        raise ConfigurationError(
            f"coordinator_key {bytes(recipient).hex()} is no valid Ed25519 public key, so no update can be sealed for"
            " it; copy it again from the coordinator: broker-coordinator keygen prints it"
        ) from error


def read_update(envelope: Envelope, key: SigningKey | None) -> Update:
    """The update in an envelope of either kind; `key` is the coordinator's, None where there is none to open with.

    Raises:
        ProtocolError: `WRONG_RECIPIENT`: sealed for another key. `MALFORMED`: no update, or a box that doesn't open.
    """
    payload = envelope.payload
    if envelope.header.kind is Kind.SEALED_UPDATE:
        payload = _open(decode_payload(payload, SealedUpdate), key)
    return decode_payload(payload, Update)


def _open(sealed: SealedUpdate, key: SigningKey | None) -> bytes:
    if key is None or sealed.recipient != key_id(key.verify_key):
        here = "there is none here" if key is None else f"this one's is {key_id(key.verify_key).hex()}"
        raise ProtocolError(
            Reason.WRONG_RECIPIENT,
            f"sealed for the coordinator key {sealed.recipient[:8].hex()}, {here};"
            " set coordinator_key on the device to this coordinator's",
        )
    try:
        return SealedBox(key.to_curve25519_private_key()).decrypt(sealed.box)
    except (CryptoError, ValueError, TypeError) as error:
        raise ProtocolError(Reason.MALFORMED, "the sealed box does not open: it was altered or cut") from error
