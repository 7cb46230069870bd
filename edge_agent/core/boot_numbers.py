"""When a device whose state was lost or put back goes on behind the boot numbers of its other life. Pure."""

from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Receipt


def must_continue_boots(receipt: Receipt, boot: int, *, is_for_newest: bool) -> bool:
    """Whether a receipt for a control message of this device shows that a state before this one got as far as `boot`.

    The receipt is verified, and its `newest_boot` is one that there is. `is_for_newest`: it is for the newest control
    message that was sent. If even that one's number was used before, another life was at this boot too; an older one
    may only have come twice.
    """
    is_used = receipt.reason == Reason.SEQUENCE_REUSED and is_for_newest
    return receipt.newest_boot > boot or (is_used and receipt.newest_boot == boot)
