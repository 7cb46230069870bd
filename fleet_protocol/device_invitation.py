"""An invitation as the operator hands it over: one line of text that lets one device join a fleet, once.

The token is the seed of an Ed25519 key. The coordinator keeps the public half alone; whoever has the line proves it by
a signature over the key that the device has made for itself.
"""

import base64
import binascii
import hashlib
from typing import Annotated

import msgspec

from fleet_protocol import cbor
from fleet_protocol.configuration import Name
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KEY_BYTES, SigningKey, VerifyKey, sign, verifies

PREFIX = "edgeflock1."
FINGERPRINT_BYTES = 32
"""SHA-256 of the authority's certificate in DER."""
TOKEN_BYTES = 16
CHECKSUM_BYTES = 4
MAX_INVITATION_CHARACTERS = 2048
MAX_HOST_CHARACTERS = 253
MAX_TASKS = 16
MAX_EXPIRY = 2**40
"""In seconds since 1970: a number that every library takes for a date is smaller."""

_KEY_USE = b"edgeflock/join"
_PROOF_USE = b"edgeflock/joins\0"

_Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class DeviceInvitation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a device must know to join. `expires` is in seconds since 1970. Without `tasks` the device has its own."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_HOST_CHARACTERS)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    authority: Annotated[bytes, msgspec.Meta(min_length=FINGERPRINT_BYTES, max_length=FINGERPRINT_BYTES)]
    coordinator_key: _Key
    fleet: Name
    shard: Name
    device: Name
    token: Annotated[bytes, msgspec.Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
    expires: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXPIRY)]
    tasks: Annotated[list[Name], msgspec.Meta(max_length=MAX_TASKS)] = []

    def key(self) -> SigningKey:
        """The key that the token is the seed of."""
        return SigningKey(hashlib.blake2b(self.token, person=_KEY_USE, digest_size=KEY_BYTES).digest())


def write_invitation(invitation: DeviceInvitation) -> str:
    """The line of text."""
    content = cbor.encode(msgspec.to_builtins(invitation, builtin_types=(bytes,)))
    return PREFIX + base64.urlsafe_b64encode(content + _checksum(content)).rstrip(b"=").decode()


def read_invitation(text: str) -> DeviceInvitation:
    """Read the line; space around and in it, as terminals and mails add it, does not count.

    Raises:
        ConfigurationError: it is none, is cut off or altered, or is of a newer edgeflock.
    """
    line = "".join(text.split())
    if not line.startswith(PREFIX) or len(line) > MAX_INVITATION_CHARACTERS:
        raise ConfigurationError(
            f"{line[:24]!r}: no invitation, which begins with {PREFIX!r} and has at most {MAX_INVITATION_CHARACTERS}"
            " characters; `broker-coordinator devices invite NAME` on the server prints one"
        )
    encoded = line.removeprefix(PREFIX)
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    content, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if not content or checksum != _checksum(content):
        raise ConfigurationError(
            f"the invitation of {len(line)} characters is cut off or altered: its checksum is wrong; copy the whole"
            " line that `broker-coordinator devices invite NAME` printed"
        )
    try:
        return msgspec.convert(cbor.decode(content, "invitation"), DeviceInvitation, builtin_types=(bytes,))
    except (msgspec.ValidationError, ProtocolError) as error:
        raise ConfigurationError(
            f"the invitation is whole, and this edgeflock can't read it ({error}); update edgeflock on this device"
        ) from error


def prove_invitation(invitation: SigningKey, topic: str, device: VerifyKey) -> bytes:
    """What shows that whoever enrols `device` on `topic` has the invitation: a signature that is good for no other."""
    return sign(invitation, _proven(topic, device))


def proves_invitation(invitation: VerifyKey, proof: bytes, topic: str, device: VerifyKey) -> bool:
    """Whether `proof` is one of that."""
    return verifies(invitation, _proven(topic, device), proof)


def _proven(topic: str, device: VerifyKey) -> bytes:
    return _PROOF_USE + bytes(device) + topic.encode()


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:CHECKSUM_BYTES]
