"""The tests' kinds in a process that goes on without them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker_coordinator.consumers import CONSUMERS
from edge_agent.producers import PRODUCERS
from fleet_protocol.kinds import KINDS
from tests.kinds import agent, coordinator


@contextmanager
def installed() -> Iterator[None]:
    """Both sides have them; afterwards every table is as it was."""
    tables: tuple[dict[Any, Any], ...] = (KINDS, PRODUCERS, CONSUMERS)
    before = [dict(table) for table in tables]
    agent.install()
    coordinator.install()
    try:
        yield
    finally:
        for table, rows in zip(tables, before, strict=True):
            table.clear()
            table.update(rows)
