"""Makes versions, and the aggregates of other kinds, of what waits in the journal; applies the retention rule.

What can't be applied is set aside (`set_aside`), and the rest goes on.

Between calls it keeps what it has read, up to a position. What the intake hands over as `decoded` is not read at all;
what lies between, of other shards' intakes, is.
"""

import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

from broker_coordinator.admission.consumer import ScaleConsumer
from broker_coordinator.aggregation.retention import NOTHING_FORGOTTEN, Forgettable, Retention, forgettable
from broker_coordinator.aggregation.staleness import is_foreseen
from broker_coordinator.consumers import journalled_consumer
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.announcements import Announcements
from broker_coordinator.serving.awaited_scale import AwaitedScale, NextScale
from broker_coordinator.serving.collapses import Collapses
from broker_coordinator.serving.due import ask_everyone, deadline
from broker_coordinator.serving.judging import out_of_turn
from broker_coordinator.serving.making import NextVersion, advance, next_version
from broker_coordinator.serving.manifests import Manifests
from broker_coordinator.serving.masked_cohorts import MaskedCohorts
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.quarantines import Quarantines
from broker_coordinator.serving.scale_maker import ScaleMaker
from broker_coordinator.serving.served_aggregate import NextAggregate, ServedAggregate
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.set_aside import SetAside, place_of
from broker_coordinator.serving.task_loading import TaskLoader
from broker_coordinator.serving.waiting import DecodedBatches, Placed, WaitingPayload
from broker_coordinator.serving.waiting_rows import WaitingRows
from broker_coordinator.storage.change_counters import TASKS, read_change_counters
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal, TasksChangedError
from broker_coordinator.storage.standing import NewlyWaiting, check_not_set_back, read_waiting
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.keys import KeyRing
from fleet_protocol.kinds import MaskReply

OnVersion = Callable[[str, int], None]
"""Called with each version that is made: the task, and its number."""

Made = TypeVar("Made", NextVersion, NextAggregate, NextScale)

logger = logging.getLogger(__name__)


class VersionMaker:
    """Serves every task in `registry`; `manifests` tell of them. `keys` open encrypted payloads, `signer` signs
    manifests, `draw_below` draws the numbers of cohorts.

    Raises:
        JournalUnavailableError: the database can't be read.
    """

    def __init__(
        self,
        journal: Journal,
        registry: TaskRegistry,
        signer: MessageSigner,
        keys: KeyRing,
        *,
        retention: Retention,
        metrics: Metrics,
        on_version: OnVersion,
        decoded: DecodedBatches,
        draw_below: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._journal = journal
        self._registry = registry
        devices = DeviceRegistry(journal.engine)
        self._scales = ScaleMaker(registry, devices)
        self._retention = retention
        self._metrics = metrics
        self._on_version = on_version
        self._decoded = decoded
        self._set_aside = SetAside(journal, keys, metrics)
        self._waiting_rows = WaitingRows(journal, keys, self._set_aside)
        self._quarantines = Quarantines(journal, metrics)
        self._collapses = Collapses(journal, keys, metrics)
        self._task_loader = TaskLoader(
            journal, keys, metrics=metrics, set_aside=self._set_aside, collapses=self._collapses
        )
        self._forgotten: dict[str, Forgettable] = {}
        self._announcements = Announcements()
        self._cohorts = MaskedCohorts(journal, signer, metrics, self._announcements.announce, draw_below=draw_below)
        self.manifests = Manifests(signer, devices, self._cohorts, self._announcements)
        self._tasks: dict[str, ServedTask] = {}
        self._load()

    def make_versions(self, now: float) -> None:
        """Make and commit every version for which enough updates wait, or of which the round is over; and every other
        aggregate for which enough payloads wait. `now` is in seconds on any one clock.

        Raises:
            JournalUnavailableError: call again later; what was committed before stands.
        """
        self.reload_if_changed()
        try:
            for task in self._served_tasks():
                self._advance_cohort(task, now)
                if task.description.masks is not None:
                    continue
                while made := self._made(task, partial(self._next_version, task, now)):
                    self._commit(task, made, now)
                if ask_everyone(task, now):
                    self._announcements.announce(task.description.task)
        except TasksChangedError:
            self._load()
        for served in self._aggregates.values():
            while not isinstance(served, AwaitedScale) and (aggregate := self._made(served, served.next_aggregate)):
                self._commit_aggregate(served, aggregate)
        while any(self._make_scale(awaited, now) for awaited in self._awaited_scales()):
            pass

    def _next_version(self, task: ServedTask, now: float) -> NextVersion | None:
        while (made := next_version(task, now)) is not None:
            if reasons := out_of_turn(task):
                self._set_aside.out_of_turn(task, reasons)
            elif not self._quarantines.hold(task):
                return made
        return None

    def mask_replied(self, helper: str, reply: MaskReply) -> None:
        """Take what a mask helper says; `make_versions` goes on with it."""
        self._cohorts.replied(helper, reply, self._tasks.values())

    def reload_if_changed(self) -> None:
        """Take in what is new in the journal, and what operators have changed. `make_versions` does so by itself.

        Raises:
            JournalUnavailableError: call again later.
        """
        handed_over = self._decoded.take(self._cursor)
        found = read_waiting(self._journal.engine, handed_over.through)
        check_not_set_back(found.last_position, handed_over.through)
        if found.change_counters.get(TASKS, 0) != self._tasks_counter:
            self._load()
        else:
            self._take(handed_over.payloads, found)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` messages: of cohorts, manifests, and invitations."""
        taken = self._cohorts.publications(limit)
        return taken + self.manifests.publications(limit - len(taken), now)

    def next_due(self) -> float | None:
        """When `make_versions` or `publications` will next have something that they have not now, or None."""
        deadlines = [
            self._announcements.next_due(),
            self._cohorts.next_due(),
            *(self._deadline(task) for task in self._served_tasks()),
            *(awaited.deadline() for awaited in self._awaited_scales()),
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _deadline(self, task: ServedTask) -> float | None:
        return self._cohorts.deadline(task) if task.description.masks is not None else deadline(task)

    def _awaited_scales(self) -> list[AwaitedScale]:
        return [served for served in self._aggregates.values() if isinstance(served, AwaitedScale)]

    def _served_tasks(self) -> list[ServedTask]:
        """Those of which versions are made."""
        return [task for task in self._tasks.values() if not self._set_aside.is_stopped(place_of(task))]

    def _made(self, served: ServedTask | ServedAggregate, make: Callable[[], Made | None]) -> Made | None:
        """What `make` makes of what waits, without payloads that can't be applied."""
        while not self._set_aside.is_stopped(place_of(served)):
            try:
                return make()
            except JournalUnavailableError:
                raise
            except Exception as error:  # nothing that is admitted may hold up the rest
                self._set_aside.unmade(served, error)
        return None

    def _load(self) -> None:
        # Read first: what changes while the rest is read is then found out the next time.
        tasks_counter = read_change_counters(self._journal.engine).get(TASKS, 0)
        self._decoded.forget()  # it was decoded for the tasks as they were
        self._set_aside.try_all_again()
        served, removed = self._registry.served(), self._registry.removed_tasks()
        before, self._tasks = self._tasks, self._task_loader.load(served)
        for name in before.keys() & self._tasks.keys():
            self._tasks[name].go_on_from(before[name])
        self._cohorts.reload()
        self._tasks_counter = tasks_counter
        self._aggregates: dict[tuple[str, int], ServedAggregate] = {}
        self.manifests.serve(self._tasks, served, removed)
        self._take([], read_waiting(self._journal.engine, after=0))

    def _take(self, handed_over: Sequence[Placed], found: NewlyWaiting) -> None:
        """Let what is new in the journal wait for its aggregate."""
        new_places = {(task, kind) for _, task, kind in found.rows} | {(task, kind) for task, kind, _ in handed_over}
        queues = {place: queue for place in new_places if (queue := self._queue(*place)) is not None}
        known = self._decoded.take_through(found.last_position)
        wanted = [position for position, task, kind in found.rows if (task, kind) in queues]
        read = self._waiting_rows.read([each for each in wanted if each not in known], self._tasks)
        behind = sorted(
            [*read, *(known[each] for each in wanted if each in known)], key=lambda placed: placed[2].position
        )
        for task, kind, waiting in chain(handed_over, behind):
            if (queue := queues.get((task, kind))) is not None:
                queue.append(waiting)
        self._cursor = found.last_position
        for name in {task for task, _ in queues}:
            self._metrics.show_task(self._tasks[name])

    def _queue(self, task: str, kind: int) -> deque[WaitingPayload] | None:
        """Where payloads of a kind wait; None where nothing here makes anything of them now."""
        if self._set_aside.is_stopped((task, kind)):
            return None
        consumer = journalled_consumer(kind)
        served = self._tasks.get(task)
        if consumer is None or served is None:
            logger.error(log_line("payloads_left_waiting", task=task, kind=kind, remedy="start with what consumes it"))
            return None
        if consumer is served.consumer:
            return served.waiting
        if (task, kind) not in self._aggregates:
            newest = self._journal.newest_aggregate(task, kind)
            kind_served = AwaitedScale if isinstance(consumer, ScaleConsumer) else ServedAggregate
            self._aggregates[task, kind] = kind_served(consumer, served.description, newest)
        return self._aggregates[task, kind].waiting

    def _advance_cohort(self, task: ServedTask, now: float) -> None:
        """Go on with a cohort of masked updates, and commit the version that it makes."""
        try:
            summed = self._cohorts.advance(task, now)
        except (JournalUnavailableError, TasksChangedError):
            raise
        except Exception as error:  # a defect that one task brings out must not stop the rest
            self._set_aside.stop(place_of(task), error)
            return
        if summed is not None:
            self._cohorts.commit(task, summed, self._tasks_counter)
            self._take_over(task, summed.made, now)

    def _commit(self, task: ServedTask, made: NextVersion, now: float) -> None:
        self._journal.add_version(
            made.version,
            kind=task.consumer.kind.number,
            update_count=made.update_count,
            last_position=made.last_position,
            tasks_counter=self._tasks_counter,
            seed=made.noise.own_seed if made.noise is not None else None,
            settles_staleness=not is_foreseen(task.description.aggregation),
        )
        self._take_over(task, made, now)
        if words := task.why_no_more:
            logger.warning(log_line("versions_ended", task=task.description.task, reason=words))

    def _take_over(self, task: ServedTask, made: NextVersion, now: float) -> None:
        """A version is committed."""
        name, number = task.description.task, made.version.number
        advance(task, made, now)
        self._announcements.announce(name)
        self._metrics.count_version(name)
        self._metrics.show_task(task)
        logger.info(
            log_line(
                "version_made",
                task=name,
                version=number,
                updates=made.update_count,
                median_staleness=made.median_staleness,
                mean_loss=made.mean_loss,
                weights=made.version.weights_hash[:16],
                **({} if made.version.clip is None else {"clip": made.version.clip}),
            )
        )
        self._on_version(name, number)
        if self._collapses.meet(task):
            raise TasksChangedError
        recall = task.consumer.recall(task.description)
        allowed = forgettable(self._retention, task.description.aggregation, recall, number)
        if allowed != (before := self._forgotten.get(name, NOTHING_FORGOTTEN)):
            self._journal.forget(name, allowed, before)
            self._forgotten[name] = allowed
        self._quarantines.version_made(task)

    def _make_scale(self, awaited: AwaitedScale, now: float) -> bool:
        """Begin the generation of a task that has its scale, if enough devices have reported; whether it began."""
        if not awaited.is_due(now):
            return False
        bundle = self._tasks[awaited.description.task].bundle
        made = self._made(awaited, lambda: awaited.next_scale(bundle, self._scales.approved_devices(), now))
        if made is None:
            return False
        self._scales.publish(bundle, made)
        self._load()
        return True

    def _commit_aggregate(self, served: ServedAggregate, made: NextAggregate) -> None:
        self._journal.add_aggregate(made.aggregate, payload_count=made.payload_count, last_position=made.last_position)
        served.advance(made)
        logger.info(
            log_line(
                "aggregate_made",
                task=made.aggregate.task,
                kind=served.consumer.kind.name,
                number=made.aggregate.number,
                payloads=made.payload_count,
            )
        )
