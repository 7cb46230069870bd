"""Keys of a session, and what they protect: contents from end to end, and who sends on each hop. Pure.

Each end makes an X25519 key for the session alone and signs it with its identity; so what was sent stays secret when an
identity's key is found out later. Each direction has a key of its own, under which chunk `index` of message `number` is
encrypted once (ChaCha20-Poly1305, RFC 8439, with that place as its nonce): a repeat is the same bytes, and no nonce is
used for two contents.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
)
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaClRuntimeError

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey

SECRET_BYTES: Final = 32
"""Of a session's X25519 secret key: random bytes."""
SEAL_BYTES: Final = 16
"""By which a chunk is longer when it is encrypted: Poly1305's tag."""
HOP_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32
_HOP_USE: Final = b"edgeflock/hop/1\x00"
_USES: Final = (b"edgeflock/ses/1d", b"edgeflock/ses/1h")
"""Set the keys of the two directions apart from each other and from every other use; 16 bytes each."""
_PLACE: Final = struct.Struct(">QI")
"""Message number and chunk index: the 96 bits of a nonce."""


class Direction(IntEnum):
    """Who sends."""

    FROM_DEVICE = 0
    FROM_HELPER = 1

    @property
    def opposite(self) -> "Direction":
        """Of the answers."""
        return Direction(1 - self)


@dataclass(frozen=True, slots=True)
class Introduced:
    """What an end is known by in a session: `identity` is its Ed25519 key, `ephemeral` its X25519 key; 32 bytes."""

    identity: bytes
    ephemeral: bytes


def ephemeral_of(secret: bytes) -> bytes:
    """The X25519 public key of a session's secret, 32 bytes each."""
    return crypto_scalarmult_base(secret)


def session_keys(
    session: bytes, secret: bytes, other: bytes, device: Introduced, helper: Introduced
) -> tuple[bytes, bytes]:
    """The keys of both directions, by `Direction`: keyed BLAKE2b (RFC 7693) of all that the two ends have signed, under
    the secret that X25519 (RFC 7748) gives both.

    Raises:
        ProtocolError: `MALFORMED`: `other`, the other end's public key, has no secret.
    """
    shared = _agree(secret, other)
    transcript = session + device.identity + device.ephemeral + helper.identity + helper.ephemeral
    of_device, of_helper = (
        hashlib.blake2b(transcript, key=shared, person=use, digest_size=_KEY_BYTES).digest() for use in _USES
    )
    return of_device, of_helper


def hop_key(own: SigningKey, other: VerifyKey, session: bytes) -> bytes:
    """The key that an end and the relay tag a session's frames with: from the X25519 forms of the end's Ed25519 key and
    the coordinator's, so each of them has it without a message. 32 bytes.

    Raises:
        ProtocolError: `MALFORMED`: `other` is no point of the curve.
    """
    try:
        public = crypto_sign_ed25519_pk_to_curve25519(bytes(other))
    except NaClRuntimeError as error:
        raise ProtocolError(Reason.MALFORMED, f"{bytes(other).hex()} is no valid Ed25519 public key") from error
    secret = crypto_sign_ed25519_sk_to_curve25519(bytes(own) + bytes(own.verify_key))
    return hashlib.blake2b(session, key=_agree(secret, public), person=_HOP_USE, digest_size=_KEY_BYTES).digest()


def hop_tag(key: bytes, covered: bytes) -> bytes:
    """Keyed BLAKE2b over what a relay checks of a frame, 16 bytes."""
    return hashlib.blake2b(covered, key=key, digest_size=HOP_TAG_BYTES).digest()


def seal(key: bytes, number: int, index: int, count: int, content: bytes) -> bytes:
    """Encrypt chunk `index` of the `count` of message `number`; 16 bytes longer than `content`."""
    return crypto_aead_chacha20poly1305_ietf_encrypt(content, _bound(count), _PLACE.pack(number, index), key)


def unseal(key: bytes, number: int, index: int, count: int, sealed: bytes) -> bytes:
    """Decrypt one.

    Raises:
        ProtocolError: `MALFORMED`: it was altered, or is of another session, direction or place.
    """
    try:
        return crypto_aead_chacha20poly1305_ietf_decrypt(sealed, _bound(count), _PLACE.pack(number, index), key)
    except CryptoError as error:
        raise ProtocolError(
            Reason.MALFORMED, f"chunk {index} of message {number} is not from this session's other end, or was altered"
        ) from error


def _bound(count: int) -> bytes:
    return count.to_bytes(2, "big")


def _agree(secret: bytes, public: bytes) -> bytes:
    try:
        return crypto_scalarmult(secret, public)
    except (NaClRuntimeError, CryptoError) as error:
        raise ProtocolError(Reason.MALFORMED, f"{public.hex()} is no X25519 public key that anybody can use") from error
