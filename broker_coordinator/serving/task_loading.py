"""Reads the tasks that are served from the journal: the newest version of each, and what the next is made by."""

from collections import deque

import msgspec

from broker_coordinator.aggregation import buffer_size
from broker_coordinator.aggregation.device_privacy.version_noise import NO_NOISE
from broker_coordinator.aggregation.harm import Harm
from broker_coordinator.aggregation.quarantine import DEVICES_REMEMBERED, NORMS_REMEMBERED, Quarantine, within_memory
from broker_coordinator.aggregation.selection import MOST_KNOWN, Utilities
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.version import Version
from broker_coordinator.consumers import version_consumer
from broker_coordinator.serving.collapses import Collapses
from broker_coordinator.serving.judging import sent_of
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.replay import state_of
from broker_coordinator.serving.served_task import ServedTask, told_by
from broker_coordinator.serving.set_aside import SetAside
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.held_updates import last_norms, last_senders_positions, last_verdicts
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.losses import known_harm
from broker_coordinator.storage.noise_seeds import new_seed, read_participations, read_series
from broker_coordinator.storage.recent_updates import newest_of_devices
from broker_coordinator.storage.records import items_together
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import Served
from bundle_runtime.bundle import Bundle
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KeyRing
from fleet_protocol.task_description import TaskDescription


class TaskLoader:
    """`keys` open encrypted payloads. Every method raises JournalUnavailableError where the database fails."""

    def __init__(
        self,
        journal: Journal,
        keys: KeyRing,
        *,
        metrics: Metrics,
        set_aside: SetAside,
        collapses: Collapses,
    ) -> None:
        self._journal = journal
        self._devices = DeviceRegistry(journal.engine)
        self._keys = keys
        self._metrics = metrics
        self._set_aside = set_aside
        self._collapses = collapses

    def load(self, served: Served) -> dict[str, ServedTask]:
        """Those that can be served here; the intake, which reads them too, says why others can't."""
        unserved = set(served.unreadable)
        found = {}
        for stored, bundle in served.readable:
            self._metrics.show_stopped(stored.name, stopped=False)
            try:
                if (task := self._load_task(stored, bundle)) is not None:
                    found[stored.name] = task
                    self._metrics.show_task(task)
            except ConfigurationError:  # said by the intake, or where its versions are stopped
                unserved.add(stored.name)
        for name in unserved:
            self._metrics.show_stopped(name, stopped=True)
        return found

    def _load_task(self, stored: StoredTask, bundle: Bundle) -> ServedTask | None:
        newest = self._journal.newest_version(stored.name)
        if newest is None:  # removed this moment, which the counter of tasks will say
            return None
        consumer = version_consumer(bundle.description)
        try:
            state = state_of(self._journal, bundle.description, newest, self._keys)
        except JournalUnavailableError:
            raise
        except Exception as error:  # an update that it remembers is damaged: its versions go on being served
            self._set_aside.stop((stored.name, consumer.kind.number), error)
            state = _without_memory(newest, bundle)
        hidden = bundle.description.device_privacy
        size = bundle.description.aggregation.smallest_buffer
        engine = self._journal.engine
        senders = self._journal.last_devices(stored.name, buffer_size.UPDATES_LOOKED_AT)
        held = self._journal.newest_held(stored.name, after=newest.number - buffer_size.VERSIONS_LOOKED_AT)
        return ServedTask(
            bundle,
            consumer,
            newest,
            state,
            bundle.grid(),
            paused=stored.paused,
            generation=stored.generation,
            participants=buffer_size.Participants({device: buffer_size.Held(*each) for device, each in held.items()}),
            watch=self._collapses.watch(stored.name, newest.number),
            first_version=stored.first_version,
            wanted_version=stored.wanted_version or 0,
            approved=self._devices.approved_count,
            senders=deque(senders, maxlen=buffer_size.UPDATES_LOOKED_AT),
            noise=read_series(engine, stored.name, hidden) if hidden else NO_NOISE,
            draw_seed=new_seed,
            participations=read_participations(engine, stored.name, size, waiting=False) if hidden else {},
            utilities=self._utilities(bundle.description),
            quarantine=self._quarantine(bundle.description, newest.number),
            harm=self._harm(bundle.description),
        )

    def _utilities(self, description: TaskDescription) -> Utilities:
        """What the last updates of the bundle have told, where devices are selected by it."""
        if description.selection is None:
            return Utilities()
        newest = newest_of_devices(self._journal.engine, description.task, MOST_KNOWN)
        facts_type = version_consumer(description).facts
        found = Utilities()
        for device, staleness, facts, updates in newest:
            told = told_by(description, msgspec.json.decode(facts, type=facts_type), staleness)
            if told is not None:
                found.note(device, told, updates)
        return found

    def _harm(self, description: TaskDescription) -> Harm:
        """What devices have declared, where that decides whether suspicious updates are tempered."""
        suspects = description.suspects
        if suspects is None or suspects.action != "temper_on_harm":
            return Harm()
        return known_harm(self._journal.engine, description.task)

    def _quarantine(self, description: TaskDescription, newest: int) -> Quarantine:
        """What updates are compared with, where suspicious ones are looked for; without what is dropped or damaged."""
        name = description.task
        if description.suspects is None:
            return Quarantine()
        lineage = self._journal.history(name).lineage(newest)
        positions = last_senders_positions(self._journal.engine, name, lineage.since_return, DEVICES_REMEMBERED)
        rows = list(self._journal.at_positions(positions))
        last = {
            row.device: sent_of(row.read_facts(), item)
            for row, item in items_together(rows, description, self._keys)
            if not isinstance(item, Exception)
        }
        norms = last_norms(self._journal.engine, name, lineage.since_return, NORMS_REMEMBERED)
        return Quarantine(within_memory(last), norms, last_verdicts(self._journal.engine, name, lineage.left))


def _without_memory(newest: Version, bundle: Bundle) -> ServerState:
    """A version's own state.

    Raises:
        ConfigurationError: it has other tensors than its bundle says, as where another edgeflock reads it otherwise.
    """
    try:
        return newest.state(bundle.description.version.parameters, {})
    except (ProtocolError, ValueError) as error:
        which = f"task {newest.task}: version {newest.number}"
        raise ConfigurationError(f"{which} is none of its bundle: {error}") from error
