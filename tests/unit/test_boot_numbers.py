"""A device goes on behind a boot number that was used before, and a message that came twice tells it nothing."""

import pytest

from edge_agent.core.boot_numbers import must_continue_boots
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, Receipt


@pytest.mark.parametrize(
    ("newest_boot", "reason", "is_for_newest", "continues"),
    [
        (6, Reason.SEQUENCE_REUSED, True, False),
        (7, Reason.SEQUENCE_REUSED, True, True),
        (7, Reason.SEQUENCE_REUSED, False, False),
        (7, Reason.UNKNOWN_KEY, True, False),
        (8, Reason.SEQUENCE_REUSED, False, True),
        (8, "", False, True),
    ],
)
def test_device_at_boot_seven(newest_boot, reason, is_for_newest, continues) -> None:
    receipt = Receipt(bytes(16), Outcome.REJECTED, reason, "", 0, newest_boot)
    assert must_continue_boots(receipt, 7, is_for_newest=is_for_newest) == continues
