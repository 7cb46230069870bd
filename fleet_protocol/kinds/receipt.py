"""The coordinator's signed answer to one message."""

from enum import StrEnum
from typing import Annotated

import msgspec

from fleet_protocol.cluster_plan import Cluster
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import DIGEST_BYTES, MAX_CONTROL_BYTES


class Outcome(StrEnum):
    """What became of a message."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Receipt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of one signed message.

    `digest` names the exact envelope bytes, so a receipt for a forged message says nothing about the real one.
    `highest_sequence` is the highest update number journalled for the device, `newest_boot` the highest boot number
    seen from it: a device whose memory was wiped continues behind them. `cluster` is the one
    that the device is in from now on, 0 where it is in none; only receipts for journalled messages of tasks with
    `clusters` have it.
    """

    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    outcome: Outcome
    reason: str
    detail: str
    highest_sequence: Count
    newest_boot: Count
    cluster: Cluster | None = None


RECEIPT = PayloadKind(7, Receipt, Leaf.DOWN, max_bytes=MAX_CONTROL_BYTES)
