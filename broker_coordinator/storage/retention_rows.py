"""Drops the bytes that the retention rule lets go: rows stay, with their hash or digest, and what became of each."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, not_, update

from broker_coordinator.aggregation.lineage import History
from broker_coordinator.aggregation.retention import Forgettable
from broker_coordinator.consumers import version_kinds
from broker_coordinator.storage.schema import HELD, cohorts, payloads, versions
from broker_coordinator.storage.task_conditions import first_version, last_senders, newest_number_in, newest_positions


def forget_weights(connection: Connection, task: str, allowed: Forgettable, after: Forgettable) -> None:
    """Drop the weights that `allowed` says, as far as `after`, the last time's, had not said it."""
    number = versions.c.number
    old = [
        versions.c.task == task,
        number.between(after.weights_through + 1, allowed.weights_through),
        number != first_version(task),
        versions.c.restored.is_(None),
        versions.c.given.is_(None),
        *([number % allowed.every != 0] if allowed.every else []),
    ]
    connection.execute(update(versions).where(*old).values(weights=None, moments=None, unrounded=b""))


def forget_envelopes(
    connection: Connection, task: str, history: History, allowed: Forgettable, after: Forgettable
) -> None:
    """Likewise the envelopes of updates that versions hold; and with them what no version will hold any more."""
    through = allowed.envelopes_through
    if through <= after.envelopes_through:
        return
    # An earlier bundle's versions may be of another kind.
    held: list[ColumnElement[bool]] = [payloads.c.kind.in_(version_kinds())]
    if stay := _that_stay(connection, task, history, allowed):
        # What stayed the last time may not be its device's newest any more.
        held += [payloads.c.aggregate <= through, *stay]
    else:
        held.append(payloads.c.aggregate.between(after.envelopes_through + 1, through))
    _drop(connection, task, *held)
    old_masks = cohorts.c.task == task, cohorts.c.version <= through, cohorts.c.masks.is_not(None)
    connection.execute(update(cohorts).where(*old_masks).values(masks=None))
    set_aside = payloads.c.aggregate.is_(None), payloads.c.set_aside.is_not(None)
    _drop(connection, task, *set_aside, not_(HELD), payloads.c.base_version <= through)


def _drop(connection: Connection, task: str, *these: ColumnElement[bool]) -> None:
    kept = payloads.c.task == task, payloads.c.envelope.is_not(None)
    connection.execute(update(payloads).where(*kept, *these).values(envelope=None))


def _that_stay(
    connection: Connection, task: str, history: History, allowed: Forgettable
) -> Sequence[ColumnElement[bool]]:
    """Conditions that leave out what a start reads again, whatever its age."""
    newest, through = newest_number_in(connection, task), allowed.envelopes_through
    stay: list[ColumnElement[bool]] = []
    if allowed.last_updates_stay:
        # What the newest version remembers, and what a replay that begins behind the dropped ones does.
        lineages = [history.lineage(version).through(through) for version in (newest, through)]
        stay += [payloads.c.position.not_in(newest_positions(task, each)) for each in lineages]
    if allowed.last_senders_stay:
        last = last_senders(task, history.lineage(newest).since_return, allowed.last_senders_stay)
        stay.append(payloads.c.position.not_in(last))
    return stay
