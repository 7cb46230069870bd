"""Making the versions anew from what the journal holds: whoever doubts a version compares it with this."""

from collections.abc import Iterator
from dataclasses import replace

from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.server_step import next_state
from broker_coordinator.aggregation.strategies import STRATEGIES, Recall
from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey


def replayed(
    journal: JournalReader, description: TaskDescription, start: int = 0, key: SigningKey | None = None
) -> Iterator[tuple[int, ServerState]]:
    """Every version after `start` with the state that its updates, or its rollback, give it: bit for bit the same.

    `start` is a version of which the weights are kept, and the updates behind it still have their envelopes. `key`, the
    coordinator's, opens encrypted updates. A rollback restores weights and moments; what is remembered mirrors
    the devices, which did not go back.

    Raises:
        ConfigurationError: `start` or an envelope is dropped.
    """
    task, plan = description.task, description.aggregation
    rollbacks = journal.rollbacks(task)
    state = _stored(journal, description, start, key)
    restorable = {start: state}
    for number in range(start + 1, journal.newest_number(task) + 1):
        if (source := rollbacks.get(number)) is not None:
            restored = restorable[source] if source in restorable else _stored(journal, description, source, key)
            remembered = STRATEGIES[plan.strategy].remember(state, (), plan)
            state = replace(restored, version=number, remembered=remembered)
        else:
            buffer = [update.item(description, key) for update in journal.held_updates(task, number)]
            state = next_state(state, buffer, plan)
        if number in rollbacks.values():
            restorable[number] = state
        yield number, state


def state_of(
    journal: JournalReader, description: TaskDescription, version: Version, key: SigningKey | None
) -> ServerState:
    """A stored version as the next one is made from it, with what its strategy remembers."""
    return version.state(description.parameters, _remembered(journal, description, version, key))


def _remembered(
    journal: JournalReader, description: TaskDescription, version: Version, key: SigningKey | None
) -> Remembered:
    task, number, plan = description.task, version.number, description.aggregation
    strategy = STRATEGIES[plan.strategy]
    match strategy.recall:
        case Recall.NOTHING:
            return {}
        case Recall.WEIGHTS:
            kept = journal.versions(task, after=number - plan.max_staleness - 1, before=number)
            return {each.number: each.state(description.parameters, {}).weights for each in kept}
        case Recall.LAST_UPDATES:
            rows = journal.newest_updates_through(task, number)
        case Recall.ALL_UPDATES:
            rows = journal.updates_through(task, number)
    updates = (row.item(description, key) for row in rows)
    return strategy.remember(version.state(description.parameters, {}), updates, plan)


def _stored(journal: JournalReader, description: TaskDescription, number: int, key: SigningKey | None) -> ServerState:
    version = journal.version(description.task, number)
    if version is None:
        raise ConfigurationError(
            f"version {number} of task {description.task!r} is not in the journal, or its weights are dropped;"
            " see which are kept with: broker-coordinator tasks show"
        )
    return state_of(journal, description, version, key)
