"""`edge-agent` with the tests' kinds: the soak's program, which is the shipped one with traps and a fast clock."""

from edge_agent import producers
from fleet_protocol import kinds
from tests.kinds.delta.kind import DELTA, ENCRYPTED_DELTA
from tests.kinds.delta.producer import DELTA_PRODUCER
from tests.kinds.round_report.kind import ENCRYPTED_ROUND_REPORT, ROUND_REPORT
from tests.kinds.round_report.producer import ROUND_REPORT_PRODUCER
from tests.soak import agent


def install() -> None:
    """Let this process produce them."""
    for kind in (ROUND_REPORT, ENCRYPTED_ROUND_REPORT, DELTA, ENCRYPTED_DELTA):
        kinds.register(kind)
    for producer in (ROUND_REPORT_PRODUCER, DELTA_PRODUCER):
        producers.register(producer)


if __name__ == "__main__":
    install()
    agent.main()
