"""`edge-agent`, as shipped, with traps at its commits, on its wire and in its worker; its time runs faster.

An agent waits up to a minute for a broker that has gone, and ten seconds for a receipt. So that a thousand kills fit
into half an hour, its event loop's clock runs `TIMES_FASTER`: all of its waiting shrinks alike, no number is changed.
"""

import asyncio
import selectors
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps

from edge_agent import cli
from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.worker import warm_process
from fleet_protocol.kinds import Outcome, Receipt
from tests.soak.places import Place
from tests.soak.trap import passing
from tests.soak.wire import PUBLISH, Packet, watch_wire

TIMES_FASTER = 5.0


class _FastSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As any selector, of which `timeout` is in the loop's own seconds."""
        return super().select(timeout and timeout / TIMES_FASTER)


class _FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_FastSelector())

    def time(self) -> float:
        """Seconds since some moment, which pass faster here."""
        return TIMES_FASTER * time.monotonic()


class _FastTime(asyncio.DefaultEventLoopPolicy):
    _loop_factory = _FastLoop


def _cuts(packet: Packet) -> list[tuple[Place, float]]:
    is_update_or_request = packet.kind == PUBLISH and packet.topic.endswith("/up")
    return [(Place.DURING_AGENT_PUBLISH, 0.5)] if is_update_or_request else []


def _watch_commits() -> None:
    begin, spool, settle = DeviceDatabase.__init__, DeviceDatabase.spool, DeviceDatabase.settle
    committing: list[Place] = []

    @contextmanager
    def within(place: Place) -> Iterator[None]:
        committing.append(place)
        try:
            yield
        finally:
            committing.pop()

    def watch(statement: str) -> None:
        if statement == "COMMIT" and committing:
            passing(committing[-1])

    @wraps(begin)
    def begin_watched(database: DeviceDatabase, *arguments: object, **named: object) -> None:
        begin(database, *arguments, **named)  # type: ignore[arg-type]
        database._connection.set_trace_callback(watch)

    @wraps(spool)
    def spool_watched(database: DeviceDatabase, finished: SpooledRound, sign: SignRow) -> list[OutboxRow]:
        with within(Place.BEFORE_OUTBOX_COMMIT):
            rows = spool(database, finished, sign)
        passing(Place.AFTER_OUTBOX_COMMIT)
        return rows

    @wraps(settle)
    def settle_watched(
        database: DeviceDatabase, row: OutboxRow, outcome: Outcome, reason: str, *, returned: bool = False
    ) -> None:
        with within(Place.BEFORE_RECEIPT_COMMIT):
            settle(database, row, outcome, reason, returned=returned)

    DeviceDatabase.__init__ = begin_watched  # type: ignore[method-assign]
    DeviceDatabase.spool, DeviceDatabase.settle = spool_watched, settle_watched  # type: ignore[method-assign]


def _watch_receipts() -> None:
    receive = Postbox.receive

    @wraps(receive)
    def receive_watched(postbox: Postbox, receipt: Receipt) -> bool:
        passing(Place.BEFORE_RECEIPT_IS_HANDLED)
        return receive(postbox, receipt)

    Postbox.receive = receive_watched  # type: ignore[method-assign]


def main() -> None:
    """The command, with everything in place."""
    watch_wire(_cuts)
    _watch_commits()
    _watch_receipts()
    warm_process.WORKER_COMMAND = (sys.executable, "-P", "-m", "tests.soak.worker")  # type: ignore[assignment]
    asyncio.set_event_loop_policy(_FastTime())
    cli.main()
