"""Cohorts of masked updates, from opening to a version or to nothing; one at a time of each task.

    open    -> closed   enough updates have come, or the least and the time is over
    closed  -> agreed   enough mask helpers can use all of a set, which is committed
    agreed  -> summed   enough have answered: the version and what it holds are committed together
    any     -> void     its updates are set aside, and devices take them back

What helpers say is kept in memory alone: they give the same answers again (`secure_aggregation.asking`). Receipts that
get lost with the process are given when a device sends its update again.
"""

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median

import msgspec
import numpy as np

from broker_coordinator.consumers.masked_update import MaskedItem, SumOfMasks, candidates
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.served_task import NextVersion, ServedTask
from broker_coordinator.serving.waiting import WaitingPayload
from broker_coordinator.storage.cohort_registry import CohortRegistry, CohortState, Settled, StoredCohort
from broker_coordinator.storage.journal import Journal
from fleet_host.log_lines import log_line
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import MaskReply, Signed, encode_payload
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.privacy.mask_plan import MaskPlan
from secure_aggregation.asking import Asking, Terms
from secure_aggregation.coordinator import VoidCohortError, sum_of_masks
from secure_aggregation.manifest import check_manifest
from secure_aggregation.messages import CohortManifest, message_hash
from secure_aggregation.signatures import signed

VERSIONS_AHEAD = 1
"""Versions that may be made while a cohort is open beside its own: an operator's rollbacks."""
CAME_LATE = "it came when its cohort was closed, or was not among those that helpers could use"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    """A task's cohort. `began` is when this process saw it first, on the caller's clock."""

    stored: StoredCohort
    began: float
    asking: Asking | None = None


@dataclass(frozen=True, slots=True)
class SummedCohort:
    """A version that a cohort has made but that is not committed, of the payloads at `positions`."""

    made: NextVersion
    stored: StoredCohort
    positions: list[int]
    masks: bytes


class MaskedCohorts:
    """`announce` publishes a task's manifest, which names its open cohort.

    Every method that reads or writes raises JournalUnavailableError where the database fails; call it again later.
    """

    def __init__(
        self, journal: Journal, signer: MessageSigner, metrics: Metrics, announce: Callable[[str], None]
    ) -> None:
        self._registry = CohortRegistry(journal.engine)
        self._signer = signer
        self._metrics = metrics
        self._announce = announce
        self._live: dict[str, _Live] = {}
        self._outbox: deque[Publication] = deque()

    def reload(self) -> None:
        """Read everything again from the database when it is needed: tasks have changed."""
        self._live.clear()

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
            if reply.refusal:
                logger.warning(log_line("mask_helper_refused", helper=helper, step=reply.step, reason=reply.refusal))
            live.asking.receive(sorted(plan.helpers).index(helper), reply)

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
        return live.began + plan.wait_seconds

    def publications(self, limit: int) -> list[Publication]:
        """Take at most `limit` requests to helpers, and receipts of updates whose cohort is settled."""
        return [self._outbox.popleft() for _ in range(min(limit, len(self._outbox)))]

    def advance(self, task: ServedTask, now: float) -> SummedCohort | None:
        """Go as far with a task's cohort as what has come allows; what it has summed is to be committed."""
        plan = task.description.masks
        if plan is None:
            return None
        live = self._found(task, now)
        if live is None:
            if not task.paused:
                self._open(task, plan, now)
            return None
        try:
            self._check_still_valid(task, plan, live)
            self._let_go_strangers(task, live)
            if live.stored.state is CohortState.OPEN and self._is_to_close(task, plan, live, now):
                self._move(live, self._registry.close, CohortState.CLOSED)
                logger.info(log_line("cohort_closed", task=task.description.task, cohort=live.stored.number))
                self._announce(task.description.task)
            if live.stored.state is CohortState.OPEN:
                return None
            return self._ask(task, plan, live, now)
        except VoidCohortError as error:
            self._void(task, live, str(error))
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

    def _found(self, task: ServedTask, now: float) -> _Live | None:
        name = task.description.task
        if name not in self._live:
            stored = self._registry.live(name)
            if stored is None:
                return None
            self._live[name] = _Live(stored, now)
            self._announce(name)
        return self._live[name]

    def _open(self, task: ServedTask, plan: MaskPlan, now: float) -> None:
        manifest = manifest_of(task, plan, number=secrets.randbelow(MAX_SEQUENCE), seed=secrets.randbelow(MAX_SEQUENCE))
        check_manifest(manifest)
        self._let_go(task, [each.position for each in task.waiting])
        self._registry.open(task.description.task, message_hash(manifest), signed(self._signer.key, manifest))
        live = self._found(task, now)
        if live is not None:
            logger.info(log_line("cohort_opened", task=task.description.task, cohort=live.stored.number))

    def _check_still_valid(self, task: ServedTask, plan: MaskPlan, live: _Live) -> None:
        """A cohort is of a task as it was: its versions, its numbers and its helpers.

        Raises:
            VoidCohortError: the task is another one now.
        """
        manifest = live.stored.cohort.manifest
        again = manifest_of(task, plan, number=manifest.number, seed=manifest.positions_seed)
        versions = {"oldest_version": manifest.oldest_version, "newest_version": manifest.newest_version}
        same = msgspec.structs.replace(again, **versions) == manifest
        if signed(self._signer.key, manifest) != live.stored.manifest:
            raise VoidCohortError("another key has signed the cohort's manifest; its updates go back into residuals")
        if not same or not manifest.oldest_version <= task.newest.number <= manifest.newest_version:
            raise VoidCohortError("the task was changed while the cohort was open; its updates go back into residuals")

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
        waited = now - live.began >= plan.wait_seconds
        return waited and devices >= plan.fewest_devices

    def _move(self, live: _Live, change: Callable[[StoredCohort], None], state: CohortState) -> None:
        change(live.stored)
        live.stored = replace(live.stored, state=state)

    def _ask(self, task: ServedTask, plan: MaskPlan, live: _Live, now: float) -> SummedCohort | None:
        manifest = live.stored.cohort.manifest
        if live.asking is None:
            items: list[MaskedItem] = [each.item for each in self._of_cohort(task, live)]
            live.asking = Asking(
                live.stored.manifest,
                manifest,
                dict(list(candidates(items).items())[: manifest.most_devices]),
                Terms(plan.patience_seconds, plan.give_up_seconds),
                sign_set=lambda cohort_set: signed(self._signer.key, cohort_set),
                fixed=live.stored.members,
                now=now,
            )
        answers = live.asking.advance(now)
        if live.asking.is_agreed(now):
            members = live.asking.signed_set
            self._registry.agree(live.stored, members)
            live.stored = replace(live.stored, state=CohortState.AGREED, members=(members, live.asking.cohort_set))
            live.asking.fix(now)
        helpers = sorted(plan.helpers)
        for number, request in live.asking.requests(now):
            self._outbox.append(self._signer.mask_request(helpers[number], request))
        return None if answers is None else self._summed(task, live, answers)

    def _summed(self, task: ServedTask, live: _Live, answers: list[Signed]) -> SummedCohort:
        assert live.asking is not None  # noqa: S101 - its answers have come
        manifest, cohort_set = live.stored.cohort.manifest, live.asking.cohort_set
        names = {member.device for member in cohort_set.members}
        first: dict[str, WaitingPayload] = {}
        for each in self._of_cohort(task, live):
            if each.device in names:
                first.setdefault(each.device, each)
        masks = sum_of_masks(manifest, cohort_set, answers).astype("<u4").tobytes()
        items = [*(each.item for each in first.values()), SumOfMasks(manifest, cohort_set, masks)]
        with np.errstate(all="ignore"):
            state = task.consumer.next_state(task.state, items, task.description)
        made = NextVersion(
            task.check(state),
            state,
            task.participants,
            task.watch.after(task.newest.number + 1, []),
            update_count=len(first),
            last_position=max(each.position for each in first.values()),
            median_staleness=median(each.staleness for each in first.values()),
            mean_loss=None,
        )
        return SummedCohort(made, live.stored, [each.position for each in first.values()], masks)

    def _void(self, task: ServedTask, live: _Live, reason: str) -> None:
        settled = self._registry.void(live.stored, reason)
        task.waiting.clear()
        self._settle(settled, Reason.VOID_COHORT, reason)
        name = task.description.task
        del self._live[name]
        self._metrics.count_void_cohort(name)
        self._announce(name)
        logger.warning(
            log_line(
                "cohort_void",
                task=name,
                cohort=live.stored.number,
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


def manifest_of(task: ServedTask, plan: MaskPlan, *, number: int, seed: int) -> CohortManifest:
    """The manifest of a cohort that is opened now."""
    description = task.description
    newest, staleness = task.newest.number, description.aggregation.max_staleness
    entries = plan.entries(description.trained_count)
    return CohortManifest(
        number=number,
        task=description.task,
        generation=task.generation,
        oldest_version=max(task.first_version, newest - staleness),
        newest_version=newest + VERSIONS_AHEAD,
        parameters=description.trained_count,
        entries=entries,
        positions="dense" if entries == description.trained_count else "random",
        positions_seed=seed,
        momentum_hash=b"",
        clip=plan.clip,
        bits=plan.bits,
        weights=(1,),
        fewest_devices=plan.fewest_devices,
        most_devices=description.aggregation.smallest_buffer,
        fewest_per_weight=plan.fewest_devices,
        helpers=tuple(bytes.fromhex(plan.helpers[name].strip()) for name in sorted(plan.helpers)),
        colluding=plan.colluding,
    )
