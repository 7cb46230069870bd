"""Computes versions again from the journal, to compare them with the stored ones."""

from collections.abc import Iterator

from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.strategies import Recall
from broker_coordinator.aggregation.version import Version
from broker_coordinator.consumers import version_consumer
from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey


def replayed(
    journal: JournalReader, description: TaskDescription, start: int | None = None, key: SigningKey | None = None
) -> Iterator[tuple[int, ServerState]]:
    """Every version after `start` with the state that its updates, or its rollback, give it: bit for bit the same.

    `start` is a version of the task's bundle (its first where there is none) of which the weights are kept, and the
    updates behind it still have their envelopes. `key`, the
    coordinator's, opens encrypted updates. Partials of single updates are added up here, where the coordinator takes
    buffers whole: so a comparison shows too that merging changes no bit.

    Raises:
        ConfigurationError: `start`, what it remembers, or an envelope is dropped.
        ProtocolError: an update is encrypted for another key.
    """
    task, consumer = description.task, version_consumer(description)
    start = journal.first_number(task) if start is None else start
    newest = journal.newest_number(task)
    rollbacks = journal.rollbacks(task)  # read after `newest`: of a running coordinator too, it has all up to there
    state = _stored(journal, description, start, key)
    restorable = {start: state}
    for number in range(start + 1, newest + 1):
        if (source := rollbacks.get(number)) is not None:
            if source not in restorable:
                restorable[source] = _kept(journal, task, source).state(description.parameters, {})
            restored = restorable[source]
            # What is remembered mirrors the devices, which do not go back.
            remembered = consumer.remembered(state, (), description)
            state = ServerState(number, restored.weights, restored.moments, remembered)
        else:
            buffer = (update.item(description, key) for update in journal.held_updates(task, number))
            parts = (consumer.partial(state, [item], description) for item in buffer)
            state = consumer.finish(state, sum(parts, consumer.partial(state, [], description)), description)
        if number in rollbacks.values():
            restorable[number] = state
        yield number, state


def state_of(
    journal: JournalReader, description: TaskDescription, version: Version, key: SigningKey | None
) -> ServerState:
    """A stored version as the next one is made from it, with what it remembers of those before it."""
    return version.state(description.parameters, _remembered(journal, description, version, key))


def _remembered(
    journal: JournalReader, description: TaskDescription, version: Version, key: SigningKey | None
) -> Remembered:
    task, number = description.task, version.number
    consumer = version_consumer(description)
    match consumer.recall(description):
        case Recall.NOTHING:
            return {}
        case Recall.WEIGHTS:
            kept = journal.versions(task, after=number - description.aggregation.max_staleness - 1, before=number)
            return {each.number: each.state(description.parameters, {}).weights for each in kept}
        case Recall.LAST_UPDATES:
            rows = journal.newest_updates_through(task, number)
        case Recall.ALL_UPDATES:
            rows = journal.updates_through(task, number)
    items = (row.item(description, key) for row in rows)
    return consumer.remembered(version.state(description.parameters, {}), items, description)


def _stored(journal: JournalReader, description: TaskDescription, number: int, key: SigningKey | None) -> ServerState:
    task, plan = description.task, description.aggregation
    state = state_of(journal, description, _kept(journal, task, number), key)
    recall = version_consumer(description).recall(description)
    before = number - journal.first_number(task)
    if recall is Recall.WEIGHTS and len(state.remembered) < min(plan.max_staleness, before):
        raise ConfigurationError(
            f"a replay of task {task!r} from version {number} needs the weights of the {plan.max_staleness} versions"
            " before it, some of which are dropped; begin at a later version, or raise [retention] versions"
        )
    return state


def _kept(journal: JournalReader, task: str, number: int) -> Version:
    version = journal.version(task, number)
    if version is None:
        raise ConfigurationError(
            f"version {number} of task {task!r} is not in the journal, or its weights are dropped; see which are kept"
            " with: broker-coordinator tasks show"
        )
    return version
