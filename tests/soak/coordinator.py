"""`broker-coordinator`, as shipped, with traps at its commits and on its wire."""

from functools import wraps
from typing import Any

from sqlalchemy import Connection, Engine, event

from broker_coordinator import cli
from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.journal import Journal, JournalEntry
from tests.soak.places import Place
from tests.soak.trap import passing
from tests.soak.wire import PUBACK, PUBLISH, Packet, watch_wire

_committing: Place | None = None
"""What the next commit is, where it is one that counts."""


def _cuts(packet: Packet) -> list[tuple[Place, float]]:
    if packet.kind == PUBACK:
        return [(Place.BEFORE_PUBACK, 0.0)]
    if packet.kind != PUBLISH:
        return []
    during = [(Place.DURING_COORDINATOR_PUBLISH, 0.5)]
    return [(Place.BEFORE_RECEIPT, 0.0), *during] if packet.topic.endswith("/down") else during


def _watch_commits() -> None:
    write, add_version = Journal.write, Journal.add_version

    @wraps(write)
    def write_watched(journal: Journal, entry: JournalEntry) -> int:
        first_position = _within(Place.BEFORE_COMMIT if entry.accepted else None, write, journal, entry)
        if entry.accepted:
            passing(Place.AFTER_COMMIT)
        return first_position

    @wraps(add_version)
    def add_version_watched(journal: Journal, version: Version, **details: int) -> None:
        _within(Place.BEFORE_VERSION_COMMIT, add_version, journal, version, **details)
        passing(Place.AFTER_VERSION_COMMIT)

    Journal.write, Journal.add_version = write_watched, add_version_watched  # type: ignore[method-assign]

    @event.listens_for(Engine, "commit")
    def _before_commit(_: Connection) -> None:
        if _committing is not None:
            passing(_committing)


def _within(place: Place | None, call: Any, *arguments: Any, **named: Any) -> Any:
    global _committing  # noqa: PLW0603 - a process of its own, with one thread that commits
    _committing = place
    try:
        return call(*arguments, **named)
    finally:
        _committing = None


def main() -> int:
    """The command, with everything in place."""
    watch_wire(_cuts)
    _watch_commits()
    return cli.main()
