"""Computes versions again from the journal: to compare them with the stored ones, or without a device's updates."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from broker_coordinator.admission.consumer import AnyVersionConsumer
from broker_coordinator.aggregation.device_privacy.version_noise import VersionNoise
from broker_coordinator.aggregation.lineage import NOBODY, History, Without, leaves_out
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.strategies import RECENT_VERSIONS, Recall
from broker_coordinator.aggregation.version import Version
from broker_coordinator.consumers import version_consumer
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.noise_seeds import read_noise
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing
from fleet_protocol.task_description import TaskDescription

OF_DEVICES = (Recall.RECENT_UPDATES, Recall.LAST_UPDATES, Recall.ALL_UPDATES)
"""What is remembered of what devices sent."""


@dataclass(frozen=True, slots=True)
class Source:
    """What versions of a task are computed from. `keys`, the coordinator's, open encrypted updates."""

    journal: JournalReader
    description: TaskDescription
    keys: KeyRing
    history: History = field(default_factory=lambda: History({}))

    @property
    def task(self) -> str:
        """The task's name."""
        return self.description.task

    @property
    def consumer(self) -> AnyVersionConsumer:
        """That of the updates."""
        return version_consumer(self.description)

    def kept(self, number: int) -> Version:
        """A version.

        Raises:
            ConfigurationError: its weights are dropped, or there is none.
        """
        version = self.journal.version(self.task, number)
        if version is None:
            raise ConfigurationError(
                f"version {number} of task {self.task!r} is not in the journal, or its weights are dropped; see which"
                " are kept with: broker-coordinator tasks show"
            )
        return version

    def recalled(self, state: ServerState, without: Without = NOBODY) -> Remembered:
        """What the version of `state`, as the next one is made from it, remembers by the journal.

        Raises:
            ConfigurationError: an envelope is dropped.
        """
        lineage = self.history.lineage(state.version, without)
        match self.consumer.recall(self.description):
            case Recall.NOTHING:
                return {}
            case Recall.WEIGHTS:
                oldest = state.version - self.description.aggregation.max_staleness
                kept = self.journal.versions(self.task, after=oldest - 1, before=state.version)
                return {each.number: each.state(self.description.version.parameters, {}).weights for each in kept}
            case Recall.RECENT_UPDATES:
                return self._of_recent(state, lineage.left)
            case Recall.LAST_UPDATES:
                rows = self.journal.newest_updates_through(self.task, lineage)
            case Recall.ALL_UPDATES:
                rows = self.journal.updates_through(self.task, state.version, lineage.left)
        items = (row.item(self.description, self.keys) for row in rows)
        return self.consumer.remembered(replace(state, remembered={}), items, self.description)

    def _of_recent(self, state: ServerState, left: Mapping[str, int]) -> Remembered:
        remembered: Remembered = {}
        for number in range(max(self.history.first, state.version - RECENT_VERSIONS), state.version):
            held = self.journal.held_updates(self.task, number + 1)
            items = (row.item(self.description, self.keys) for row in held if left.get(row.device, -1) <= number)
            before = replace(state, version=number, remembered=remembered)
            remembered = self.consumer.remembered(before, items, self.description)
        return remembered


def source_of(journal: JournalReader, description: TaskDescription, keys: KeyRing) -> Source:
    """What versions of a task are computed from, as it is now."""
    return Source(journal, description, keys, journal.history(description.task))


def replayed(
    journal: JournalReader,
    description: TaskDescription,
    start: int | None = None,
    keys: KeyRing = (),
    *,
    through: int | None = None,
    without: Without = NOBODY,
) -> Iterator[tuple[int, ServerState]]:
    """Every version after `start`, up to `through` or the newest, with the state that its updates, or its rollback,
    give it: bit for bit the same. Of devices in `without`, no update is taken that a version of theirs holds, and from
    the first of these on nothing is remembered.

    `start` is a version of the task's bundle (its first where there is none) of which the weights are kept, and the
    updates behind it still have their envelopes. Partials of single updates are added up here, where the coordinator
    takes buffers whole: so a comparison shows too that merging changes no bit.

    Raises:
        ConfigurationError: `start`, what it remembers, or an envelope is dropped.
        ProtocolError: an update is encrypted for another key.
    """
    newest = journal.newest_number(description.task) if through is None else through
    # Read after `newest`: of a running coordinator too, it has all up to there.
    source = source_of(journal, description, keys)
    start = source.history.first if start is None else start
    state = _stored(source, start, without)
    restored = set(source.history.rollbacks.values())
    restorable = {start: state}
    for number in range(start + 1, newest + 1):
        if (old := source.history.rollbacks.get(number)) is not None:
            weights = restorable.get(old) or source.kept(old).state(description.version.parameters, {})
            state = _back_to(source, state, weights, without)
        elif number in source.history.given:
            given = source.kept(number).state(description.version.parameters, {})
            state = replace(_passed(source, state), weights=given.weights)
        elif replay := source.history.replay_after(number - 1):
            state = _passed(source, state) if without else _computed_anew(source, state, *replay)
        else:
            leaves = source.history.departed_at(number - 1) or _leaves_at(without, number)
            if leaves and source.consumer.recall(description) in OF_DEVICES:
                state = replace(state, remembered=source.recalled(state, without))
            state = _next(source, state, without)
        if number in restored:
            restorable[number] = state
        yield number, state


def _computed_anew(source: Source, state: ServerState, start: int, devices: Without) -> ServerState:
    """As `without_devices`, of a version that is there: whoever compares versions may begin with it."""
    try:
        return without_devices(source, state, start, devices)
    except ConfigurationError as error:
        number, reason = state.version + 1, str(error).partition("; ")[0]
        raise ConfigurationError(
            f"version {number} of task {source.task!r} was computed anew from version {start} on, without what was"
            f" forgotten, and can't be once more: {reason}; begin with that version: --from {number}"
        ) from error


def without_devices(source: Source, state: ServerState, start: int, devices: Without) -> ServerState:
    """The version after `state`, which is its replay from the version `start` on, without the updates of `devices`.

    Raises:
        ConfigurationError: as `replayed`.
    """
    made = [(start, _stored(source, start, devices))]
    for made[0] in replayed(
        source.journal, source.description, start, source.keys, through=state.version, without=devices
    ):
        pass
    return _back_to(source, state, made[0][1])


def state_of(journal: JournalReader, description: TaskDescription, version: Version, keys: KeyRing) -> ServerState:
    """A stored version as the next one is made from it, with what it remembers of those before it."""
    state = version.state(description.version.parameters, {})
    return replace(state, remembered=source_of(journal, description, keys).recalled(state))


def require_memory(
    journal: JournalReader, description: TaskDescription, version: int, read_keys: Callable[[], KeyRing]
) -> None:
    """Check that a rollback to a version restores what the version remembered of devices.

    Raises:
        ConfigurationError: an envelope is dropped.
        ProtocolError: an update is encrypted for another key.
    """
    stored = journal.version(description.task, version)
    if stored is None or version_consumer(description).recall(description) is not Recall.LAST_UPDATES:
        return
    try:
        state_of(journal, description, stored, read_keys())
    except ConfigurationError as error:
        raise ConfigurationError(
            f"version {version} of task {description.task!r} can't be restored: {error}; roll back to a later version"
        ) from error


def _leaves_at(without: Without, version: int) -> bool:
    return any(first == version for spans in without.values() for first, _ in spans)


def _next(source: Source, state: ServerState, without: Without) -> ServerState:
    """The version that the held updates make; of none, an equal one."""
    consumer, task = source.consumer, source.description
    held = source.journal.held_updates(source.task, state.version + 1)
    noise = _noise(source, state.version + 1)
    total = consumer.partial(state, [], task)
    is_empty = True
    for update in held:
        if not leaves_out(without, update.device, state.version + 1):
            total += consumer.partial(state, [update.item(task, source.keys)], task)
            is_empty = False
        elif noise is not None:
            raise ConfigurationError(
                f"version {state.version + 1} of {task.task} hides each device by noise: without an update of"
                f" {update.device} and with the same noise, the difference would show that update; publish another"
                " bundle, which begins without any"
            )
    if noise is not None:
        total += consumer.partial(state, [noise], task)
    if not is_empty and (masks := source.journal.sum_of_masks(source.task, state.version + 1)) is not None:
        total += consumer.partial(state, [masks], task)
    return _passed(source, state) if is_empty else consumer.finish(state, total, task)


def _noise(source: Source, version: int) -> VersionNoise | None:
    """What a version was made of beside updates, where it hides each device."""
    plan = source.description.device_privacy
    return None if plan is None else read_noise(source.journal.engine, source.task, version, plan)


def _passed(source: Source, state: ServerState) -> ServerState:
    """The same once more, as the next version."""
    remembered = source.consumer.remembered(state, (), source.description)
    return replace(state, version=state.version + 1, remembered=remembered)


def _back_to(source: Source, state: ServerState, old: ServerState, without: Without = NOBODY) -> ServerState:
    """The version after `state`, with weights and moments of `old`, and its own step if the journal has one.

    The last updates of devices are those on the way to `old`. Other memory mirrors the devices, which do not go back.
    """
    after = _passed(source, state)
    remembered = after.remembered
    recall = source.consumer.recall(source.description)
    if recall is Recall.LAST_UPDATES or (recall is Recall.ALL_UPDATES and source.history.departed_at(state.version)):
        remembered = source.recalled(after, without)
    step = source.history.steps.get(after.version, after.step)
    return replace(after, weights=old.weights, moments=old.moments, remembered=remembered, step=step)


def _stored(source: Source, number: int, without: Without) -> ServerState:
    task, plan = source.task, source.description.aggregation
    state = source.kept(number).state(source.description.version.parameters, {})
    state = replace(state, remembered=source.recalled(state, without))
    recall = source.consumer.recall(source.description)
    if recall is Recall.WEIGHTS and len(state.remembered) < min(plan.max_staleness, number - source.history.first):
        raise ConfigurationError(
            f"a replay of task {task!r} from version {number} needs the weights of the {plan.max_staleness} versions"
            " before it, some of which are dropped; begin at a later version, or raise [retention] versions"
        )
    return state
