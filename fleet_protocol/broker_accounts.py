"""A device's account at the broker: its name and its password follow from two keys, so that nobody need send either.

Both sides compute the same X25519 secret, each from its own private key and the other's public one, as an encrypted
update does (`fleet_protocol.encryption`). So the coordinator can make every account again when the broker has lost
them, and stores none of the passwords.
"""

import hashlib

from nacl.exceptions import RuntimeError as NaClRuntimeError
from nacl.public import Box

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, VerifyKey, key_id

_PASSWORD_USE = b"edgeflock/broker"
"""Sets this use of the shared secret apart from every other; 16 bytes."""
_PASSWORD_BYTES = 32


def account_name(device: str, key: VerifyKey) -> str:
    """The account of one key of a device: another key is another account, and no device's name has a dot."""
    return f"{device}.{key_id(key).hex()}"


def client_identifier(fleet: str, device: str) -> str:
    """The one MQTT client identifier under which a device connects."""
    return f"{fleet}-{device}"


def own_password(own: SigningKey, coordinator: VerifyKey) -> str:
    """The password of the account that belongs to `own`.

    Raises:
        ConfigurationError: the coordinator's key is no point of the curve.
    """
    return _password(own, coordinator, own.verify_key, coordinator)


def password_of(device: VerifyKey, coordinator: SigningKey) -> str:
    """The same for whoever has the coordinator's key.

    Raises:
        ConfigurationError: the device's key is no point of the curve.
    """
    return _password(coordinator, device, device, coordinator.verify_key)


def _password(own: SigningKey, other: VerifyKey, device: VerifyKey, coordinator: VerifyKey) -> str:
    try:
        shared = Box(own.to_curve25519_private_key(), other.to_curve25519_public_key()).shared_key()
    except NaClRuntimeError as error:
        raise ConfigurationError(
            f"key {bytes(other).hex()} is no valid Ed25519 public key; copy it again from where it was printed"
        ) from error
    message = bytes(device) + bytes(coordinator)
    return hashlib.blake2b(message, key=shared, person=_PASSWORD_USE, digest_size=_PASSWORD_BYTES).hexdigest()
