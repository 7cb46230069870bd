"""What travels: how a round went."""

import msgspec

from fleet_protocol.kinds import Count, EncryptedPayload, Leaf, PayloadKind
from fleet_protocol.limits import MAX_CONTROL_BYTES


class RoundReport(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device has trained `steps` steps, on its samples up to number `trained_through`."""

    steps: Count
    trained_through: Count


ROUND_REPORT = PayloadKind(201, RoundReport, Leaf.UP, MAX_CONTROL_BYTES, journalled=True)
ENCRYPTED_ROUND_REPORT = PayloadKind(
    202, EncryptedPayload, Leaf.UP, MAX_CONTROL_BYTES, journalled=True, content=ROUND_REPORT
)
