"""Signatures over single messages, which others than their receiver check. Pure.

Ed25519 over 16 bytes that name the type, and the message's canonical bytes: none verifies as one of another type, nor
as an envelope, whose signed bytes begin otherwise (RFC 9052, section 4.4).
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey, sign, verifies
from fleet_protocol.kinds import Signed, decode_payload, encode_payload
from secure_aggregation.messages import (
    CohortManifest,
    CohortSet,
    EncryptionKey,
    HelperAnswer,
    SealedSeeds,
    SetSignature,
)

Message = TypeVar("Message", bound=msgspec.Struct)

_USES: Final[Mapping[type[msgspec.Struct], bytes]] = {
    CohortManifest: b"edgeflock/mask/m",
    SealedSeeds: b"edgeflock/mask/b",
    CohortSet: b"edgeflock/mask/s",
    SetSignature: b"edgeflock/mask/q",
    HelperAnswer: b"edgeflock/mask/a",
    EncryptionKey: b"edgeflock/mask/e",
}


def signed(key: SigningKey, message: msgspec.Struct) -> Signed:
    """Sign one of these messages. The same arguments give the same bytes."""
    content = encode_payload(message)
    return Signed(content, sign(key, _USES[type(message)] + content))


def read_unverified(message: Signed, kind: type[Message]) -> Message:
    """Read what a signed message says, to find whose key it must be checked with.

    Raises:
        ProtocolError: `MALFORMED`: it is not such a message, or not in the form that `signed` writes.
    """
    return decode_payload(message.content, kind)


def verified(message: Signed, kind: type[Message], key: VerifyKey, signer: str) -> Message:
    """Check a signature, then read the message; `signer` is who should have signed, in words.

    Raises:
        ProtocolError: `BAD_SIGNATURE`, `MALFORMED`.
    """
    if not verifies(key, _USES[kind] + message.content, message.signature):
        raise ProtocolError(Reason.BAD_SIGNATURE, f"{kind.__name__} is not signed by {signer}")
    return read_unverified(message, kind)
