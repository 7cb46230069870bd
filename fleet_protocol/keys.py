"""Ed25519 keys: how they are written down, named, and used."""

import hashlib
from typing import TypeAlias

from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from fleet_protocol.counted_lines import read_counted, write_counted
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_COORDINATOR_KEYS

KEY_BYTES = 32
KEY_ID_BYTES = 8
SIGNATURE_BYTES = 64

__all__ = ["KEY_BYTES", "KEY_ID_BYTES", "SIGNATURE_BYTES", "KeyRing", "SigningKey", "VerifyKey"]

KeyRing: TypeAlias = tuple[SigningKey, ...]
"""A coordinator's private keys, newest first: the first signs, all of them decrypt. Empty where none is at hand."""


def key_id(key: VerifyKey | bytes) -> bytes:
    """The name under which a key is looked up: the first 8 bytes of the SHA-256 of the public key."""
    return hashlib.sha256(bytes(key)).digest()[:KEY_ID_BYTES]


def write_signing_key(key: SigningKey) -> str:
    """The text of a private key's file."""
    return bytes(key).hex() + "\n"


def read_signing_key(text: str, name: str) -> SigningKey:
    """Read the text of a key file.

    Raises:
        ConfigurationError: it is not 64 hex digits.
    """
    return SigningKey(_key_bytes(text, name))


def write_key_ring(keys: KeyRing) -> str:
    """The text of a coordinator's key file: a key on each line, below their number."""
    return write_counted(bytes(key).hex() for key in keys)


def read_key_ring(text: str, name: str) -> KeyRing:
    """Read the text of a coordinator's key file.

    Raises:
        ConfigurationError: a line is not 64 hex digits, stands there twice, or is missing, or there are too many.
    """
    lines = read_counted(text, name) or [""]
    keys = tuple(SigningKey(_key_bytes(line, f"{name}, key {at}")) for at, line in enumerate(lines, start=1))
    if len(keys) > MAX_COORDINATOR_KEYS:
        raise ConfigurationError(f"{name}: {len(keys)} keys, at most {MAX_COORDINATOR_KEYS} are kept: delete the last")
    if len(set(keys)) < len(keys):
        raise ConfigurationError(f"{name}: a key stands there twice; leave each on one line, the newest first")
    return keys


def write_verify_key(key: VerifyKey) -> str:
    """A public key as 64 hex digits."""
    return bytes(key).hex()


def read_verify_key(text: str, name: str, source: str) -> VerifyKey:
    """Read a public key; `source` says what prints it.

    Raises:
        ConfigurationError: it is not 64 hex digits, or nothing but zeros, as in an example.
    """
    try:
        key = _key_bytes(text, name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; {source} prints it") from error
    if not any(key):
        raise ConfigurationError(f"{name} is all zeros, which only holds its place; {source} prints the key")
    return VerifyKey(key)


def sign(key: SigningKey, message: bytes) -> bytes:
    """This key's signature (64 bytes) over `message`."""
    # libsodium's secret key is the seed followed by the public key. PyNaCl's own methods are some microseconds slower.
    return crypto_sign(message, bytes(key) + bytes(key.verify_key))[:SIGNATURE_BYTES]


def verifies(key: VerifyKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is this key's over `message`."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, bytes(key))
    except BadSignatureError:
        return False
    return True


def _key_bytes(text: str, name: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{name}: expected {2 * KEY_BYTES} hex digits (an Ed25519 key), found {len(text.strip())} characters"
        )
    return key
