"""Cohorts of masked updates, from opening to a version or to nothing; one at a time of each task.

    open    -> closed   enough updates have come, or the least and the time is over
    closed  -> agreed   enough mask helpers can use all of a set, which is committed
    agreed  -> summed   enough have answered: the version and what it holds are committed together
    any     -> void     its updates are set aside, and devices take them back

What helpers say is kept in memory alone: they give the same answers again (`secure_aggregation.asking`). Receipts that
get lost with the process are given when a device sends its update again. So is who may have spoiled sums.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from broker_coordinator.consumers.masked_update import MaskedItem, first_of_each_device
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.cohort_manifests import manifest_of, named_positions, require_as_opened, weight_in
from broker_coordinator.serving.cohort_sums import SummedCohort, summed_cohort
from broker_coordinator.serving.helper_words import HelperWords
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.spoilers import Spoilers
from broker_coordinator.serving.waiting import WaitingPayload
from broker_coordinator.storage.cohort_registry import CohortRegistry, CohortState, Settled, StoredCohort
from broker_coordinator.storage.journal import Journal
from fleet_host.log_lines import log_line
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import MaskReply, encode_payload
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.privacy.mask_plan import MaskPlan
from secure_aggregation.asking import Asking, Terms
from secure_aggregation.coordinator import AdmittedUpdate, SpoiledSumError, VoidCohortError, summed_ciphertext
from secure_aggregation.manifest import check_manifest
from secure_aggregation.messages import message_hash
from secure_aggregation.signatures import signed

BACKLOG_SECONDS = 10.0
"""A cohort that was open before this process, and whose time is over, closes so much later: what has waited at the
broker meanwhile is for it."""
CAME_LATE = "it came when its cohort was closed, or was not among those that helpers could use"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    """A task's cohort. `opened` is when, and it closes with few updates no earlier than at `closes_from`, both on the
    caller's clock.
    """

    stored: StoredCohort
    opened: float
    closes_from: float
    asking: Asking | None = None


class MaskedCohorts:
    """`announce` publishes a task's manifest, which names its open cohort. `draw_below` draws a cohort's numbers, and
    `wall_clock` gives seconds since 1970.

    Every method that reads or writes raises JournalUnavailableError where the database fails; call it again later.
    """

    def __init__(
        self,
        journal: Journal,
        signer: MessageSigner,
        metrics: Metrics,
        announce: Callable[[str], None],
        *,
        draw_below: Callable[[int], int] = secrets.randbelow,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = CohortRegistry(journal.engine)
        self._signer = signer
        self._metrics = metrics
        self._announce = announce
        self._draw_below = draw_below
        self._wall_clock = wall_clock
        self._live: dict[str, _Live] = {}
        self._without_cohort: set[str] = set()
        self._spoilers = Spoilers()
        self._words = HelperWords()
        self._outbox: deque[Publication] = deque()

    def reload(self) -> None:
        """Read everything again from the database when it is needed: tasks have changed."""
        self._live.clear()
        self._without_cohort.clear()

    def open_manifest(self, task: str) -> bytes:
        """The manifest of the task's open cohort, as devices are told it; empty where none is open."""
        live = self._live.get(task)
        return encode_payload(live.stored.manifest) if live and live.stored.state is CohortState.OPEN else b""

    def replied(self, helper: str, reply: MaskReply, tasks: Iterable[ServedTask]) -> None:
        """Take what a mask helper says; it counts where it is about what was asked of it."""
        for task in tasks:
            live, plan = self._live.get(task.description.task), task.description.masks
            if live is None or live.asking is None or plan is None or helper not in plan.helpers:
                continue
            counts = live.asking.receive(sorted(plan.helpers).index(helper), reply)
            if counts and reply.refusal:
                self._words.refused(task.description.task, helper, reply.step, reply.refusal)

    def next_due(self) -> float | None:
        """When something is due that is not now, if nothing comes."""
        return min((live.asking.next_due() for live in self._live.values() if live.asking), default=None)

    def deadline(self, task: ServedTask) -> float | None:
        """When the task's open cohort closes with few updates; None where it has too few of them, or is closed."""
        live, plan = self._live.get(task.description.task), task.description.masks
        if live is None or plan is None or live.stored.state is not CohortState.OPEN:
            return None
        if len(self._of_cohort(task, live)) < plan.fewest_devices:
            return None
        return max(live.opened + plan.wait_seconds, live.closes_from)

    def publications(self, limit: int) -> list[Publication]:
        """Take at most `limit` requests to helpers, and receipts of updates whose cohort is settled."""
        return [self._outbox.popleft() for _ in range(min(limit, len(self._outbox)))]

    def advance(self, task: ServedTask, now: float) -> SummedCohort | None:
        """Go as far with a task's cohort as what has come allows; what it has summed is to be committed."""
        plan = task.description.masks
        if plan is None:
            self._end_left_over(task)
            return None
        live = self._found(task, now)
        if live is None:
            if not task.paused:
                self._open(task, plan, now)
            return None
        try:
            require_as_opened(task, plan, live.stored.cohort.manifest, live.stored.manifest, self._signer.key)
            self._let_go_strangers(task, live)
            if live.stored.state is CohortState.OPEN and self._is_to_close(task, plan, live, now):
                self._move(live, self._registry.close, CohortState.CLOSED)
                logger.info(log_line("cohort_closed", task=task.description.task, cohort=live.stored.number))
                self._announce(task.description.task)
            if live.stored.state is CohortState.OPEN:
                return None
            return self._ask(task, plan, live, now)
        except VoidCohortError as error:
            if isinstance(error, SpoiledSumError) and live.asking is not None:
                members = {member.device for member in live.asking.cohort_set.members}
                self._spoilers.spoiled(task.description.task, members)
            self._void(task, live.stored, str(error))
            return None

    def commit(self, task: ServedTask, summed: SummedCohort, tasks_counter: int) -> None:
        """Commit a version with the set that has made it.

        Raises:
            TasksChangedError: nothing was committed; read the tasks again.
        """
        held, left = self._registry.add_version(
            summed.stored,
            summed.made.version,
            summed.positions,
            summed.masks,
            left_out=CAME_LATE,
            tasks_counter=tasks_counter,
        )
        members = set(summed.positions)
        task.waiting = deque(each for each in task.waiting if each.position in members)
        self._settle(held, None, "")
        self._settle(left, Reason.VOID_COHORT, CAME_LATE)
        del self._live[task.description.task]
        self._spoilers.summed(task.description.task, summed.devices)
        self._words.cohort_over(task.description.task)

    def _found(self, task: ServedTask, now: float) -> _Live | None:
        name = task.description.task
        if name not in self._live:
            stored = self._registry.live(name)
            if stored is None:
                return None
            waited = 0.0 if stored.opened is None else max(0.0, self._wall_clock() - stored.opened)
            self._live[name] = _Live(stored, now - waited, now + BACKLOG_SECONDS)
            self._announce(name)
        return self._live[name]

    def _open(self, task: ServedTask, plan: MaskPlan, now: float) -> None:
        number, seed = self._draw_below(MAX_SEQUENCE), self._draw_below(MAX_SEQUENCE)
        manifest = manifest_of(task, plan, number=number, seed=seed, top=named_positions(task, plan))
        check_manifest(manifest)
        self._let_go(task, [each.position for each in task.waiting])
        name = task.description.task
        signed_manifest = signed(self._signer.key, manifest)
        stored = self._registry.open(name, message_hash(manifest), signed_manifest, int(self._wall_clock()))
        self._live[name] = _Live(stored, now, now)
        self._announce(name)
        logger.info(log_line("cohort_opened", task=name, cohort=stored.number))

    def _end_left_over(self, task: ServedTask) -> None:
        """Of a task that was published anew without masks: its devices are to hear that nothing comes of their updates.
        It is looked for once after each change of the tasks.
        """
        name = task.description.task
        if name not in self._without_cohort and (stored := self._registry.live(name)) is not None:
            self._void(task, stored, "the task was published anew without [privacy.masks]; its updates were of before")
        self._without_cohort.add(name)

    def _of_cohort(self, task: ServedTask, live: _Live) -> list[WaitingPayload]:
        cohort = live.stored.cohort.name.hex()
        return [each for each in task.waiting if each.facts.cohort == cohort]

    def _let_go_strangers(self, task: ServedTask, live: _Live) -> None:
        """Updates of earlier cohorts, whose settling they have missed."""
        cohort = live.stored.cohort.name.hex()
        self._let_go(task, [each.position for each in task.waiting if each.facts.cohort != cohort])

    def _let_go(self, task: ServedTask, positions: list[int]) -> None:
        if positions:
            settled = self._registry.let_go(task.description.task, positions, CAME_LATE)
            task.drop(positions)
            self._settle(settled, Reason.VOID_COHORT, CAME_LATE)

    def _is_to_close(self, task: ServedTask, plan: MaskPlan, live: _Live, now: float) -> bool:
        devices = len({each.device for each in self._of_cohort(task, live)})
        if devices >= live.stored.cohort.manifest.most_devices:
            return True
        waited = now >= max(live.opened + plan.wait_seconds, live.closes_from)
        return waited and devices >= plan.fewest_devices

    def _move(self, live: _Live, change: Callable[[StoredCohort], None], state: CohortState) -> None:
        change(live.stored)
        live.stored = replace(live.stored, state=state)

    def _ask(self, task: ServedTask, plan: MaskPlan, live: _Live, now: float) -> SummedCohort | None:
        manifest = live.stored.cohort.manifest
        if live.asking is None:
            items = first_of_each_device(each.item for each in self._of_cohort(task, live))
            live.asking = Asking(
                live.stored.manifest,
                manifest,
                self._candidates(task, live, items),
                Terms(plan.patience_seconds, plan.give_up_seconds),
                sign_set=lambda cohort_set: signed(self._signer.key, cohort_set),
                weight_of=partial(weight_in, task, manifest),
                ciphertext_of=lambda cohort_set: summed_ciphertext(
                    manifest, cohort_set, lambda device: items[device].values
                ),
                fixed=live.stored.members,
                now=now,
            )
        helpers = sorted(plan.helpers)
        try:
            answers = live.asking.advance(now)
        finally:
            for number, devices in live.asking.take_lone_words().items():
                self._words.named_alone(task.description.task, helpers[number], devices)
        if live.asking.is_agreed(now):
            members = live.asking.agree()
            self._registry.agree(live.stored, members[0])
            live.stored = replace(live.stored, state=CohortState.AGREED, members=members)
            live.asking.fix(now)
        for number, request in live.asking.requests(now):
            self._outbox.append(self._signer.mask_request(helpers[number], request))
        if answers is None:
            return None
        return summed_cohort(task, live.stored, live.asking.cohort_set, self._of_cohort(task, live), answers)

    def _candidates(self, task: ServedTask, live: _Live, items: Mapping[str, MaskedItem]) -> dict[str, AdmittedUpdate]:
        """The updates of the cohort, without some of the devices that may have spoiled sums; all, where the set is
        committed.
        """
        manifest = live.stored.cohort.manifest
        found = {device: item.unopened() for device, item in islice(items.items(), manifest.most_devices)}
        if live.stored.members is not None:
            return found
        left_out = self._spoilers.left_out(task.description.task, found, manifest.fewest_devices)
        return {device: update for device, update in found.items() if device not in left_out}

    def _void(self, task: ServedTask, stored: StoredCohort, reason: str) -> None:
        settled = self._registry.void(stored, reason)
        name = task.description.task
        if task.description.masks is not None:
            task.waiting.clear()
        self._settle(settled, Reason.VOID_COHORT, reason)
        self._live.pop(name, None)
        self._words.cohort_over(name)
        self._metrics.count_void_cohort(name)
        self._announce(name)
        logger.warning(
            log_line(
                "cohort_void",
                task=name,
                cohort=stored.number,
                updates=len(settled),
                reason=reason,
                remedy="see that enough mask helpers run, and that their rosters have the devices",
            )
        )

    def _settle(self, settled: Iterable[Settled], reason: Reason | None, detail: str) -> None:
        """Tell devices at once; who does not hear it is told when it sends its update again."""
        for each in settled:
            self._outbox.append(
                self._signer.receipt(
                    each.device, each.digest, reason=reason, detail=detail, highest_sequence=0, newest_boot=0
                )
            )
