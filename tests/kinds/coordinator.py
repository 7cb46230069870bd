"""`broker-coordinator` with the tests' kinds: the soak's program, which is the shipped one with traps."""

import sys

from broker_coordinator.consumers import register_consumer
from fleet_protocol import kinds
from tests.kinds.delta.consumer import DELTA_CONSUMER
from tests.kinds.delta.kind import DELTA, ENCRYPTED_DELTA
from tests.kinds.round_report.consumer import ROUND_REPORT_CONSUMER
from tests.kinds.round_report.kind import ENCRYPTED_ROUND_REPORT, ROUND_REPORT
from tests.soak import coordinator


def install() -> None:
    """Let this process consume them."""
    for kind in (ROUND_REPORT, ENCRYPTED_ROUND_REPORT, DELTA, ENCRYPTED_DELTA):
        kinds.register(kind)
    register_consumer(ROUND_REPORT_CONSUMER)
    register_consumer(DELTA_CONSUMER)


if __name__ == "__main__":
    install()
    sys.exit(coordinator.main())
