"""Making the versions anew from what the journal holds: whoever doubts a version compares it with this."""

from collections.abc import Iterator

from broker_coordinator.journal_reader import JournalReader
from broker_coordinator.records import Version
from broker_coordinator.server_state import ServerState, next_state
from broker_coordinator.strategies import REMEMBERING
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError


def replayed(journal: JournalReader, description: TaskDescription, start: int = 0) -> Iterator[tuple[int, ServerState]]:
    """Every version after `start` with the state that its updates, or its rollback, give it: bit for bit the same.

    `start` is a version of which the weights are kept, and the updates behind it still have their envelopes.

    Raises:
        ConfigurationError: they do not.
    """
    task, plan = description.task, description.aggregation
    rollbacks = journal.rollbacks(task)
    state = _stored(journal, description, start)
    restored = {start: state}
    for number in range(start + 1, journal.newest_number(task) + 1):
        if (source := rollbacks.get(number)) is not None:
            state = restored[source] if source in restored else _stored(journal, description, source)
        else:
            buffer = [update.buffered(description.shapes) for update in journal.held_updates(task, number)]
            state = next_state(state, buffer, plan)
        if number in rollbacks.values():
            restored[number] = state
        yield number, state


def _stored(journal: JournalReader, description: TaskDescription, number: int) -> ServerState:
    version = journal.version(description.task, number)
    if version is None:
        raise ConfigurationError(
            f"version {number} of task {description.task!r} is not in the journal, or its weights are dropped;"
            " see which are kept with: broker-coordinator tasks show"
        )
    return state_of(journal, description, version)


def state_of(journal: JournalReader, description: TaskDescription, version: Version) -> ServerState:
    """A stored version as the next one is made from it, with the updates that its strategy remembers."""
    remembered = {}
    if description.aggregation.strategy in REMEMBERING:
        last = journal.newest_held_updates(description.task, through=version.number)
        remembered = {row.device: row.buffered(description.shapes) for row in last}
    return version.state(description.parameters, remembered)
