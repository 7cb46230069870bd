"""A message that is sent under another shard than it was signed for, and which shard that was.

A payload that waits for its receipt keeps its bytes when its device moves: the same bytes under the same number can't
count twice, whichever shard had them first. As a signature covers its topic, the shard has to be said beside it.
"""

from dataclasses import dataclass

from fleet_protocol import cbor
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.topics import check_name

FIRST_BYTE = b"\x82"
"""A CBOR array of two; a signed message begins with another byte."""


@dataclass(frozen=True, slots=True)
class MovedMessage:
    """`envelope`, the very bytes that were signed, for the topic of the same device and leaf under `shard`."""

    shard: str
    envelope: bytes


def write_moved(moved: MovedMessage) -> bytes:
    """The bytes of such a message: a CBOR array of the shard and the envelope."""
    return FIRST_BYTE + cbor.encode_plain(moved.shard) + cbor.byte_string(moved.envelope)


def read_moved(data: bytes) -> MovedMessage | None:
    """Read one; None where it is none. Nothing of it is verified.

    Raises:
        ProtocolError: `MALFORMED`.
    """
    if data[:1] != FIRST_BYTE:
        return None
    match cbor.decode(data, "moved message"):
        case [str(shard), bytes(envelope)]:
            return MovedMessage(check_name("shard", shard), envelope)
    raise ProtocolError(Reason.MALFORMED, "a moved message is an array of a shard's name and the signed message")
