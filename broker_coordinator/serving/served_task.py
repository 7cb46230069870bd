"""One task as it is served: its newest version, and the updates that wait for the next. Pure."""

import math
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from statistics import median
from typing import Any

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import AnyVersionConsumer
from broker_coordinator.admission.participation import Participation, Participations, require_turn, why_spent
from broker_coordinator.aggregation.buffer_size import (
    UPDATES_LOOKED_AT,
    VERSIONS_LOOKED_AT,
    Participants,
    full_at,
    has_gone_round,
)
from broker_coordinator.aggregation.collapse import Watch
from broker_coordinator.aggregation.device_privacy.version_noise import NO_NOISE, NoiseSeries, no_seed
from broker_coordinator.aggregation.means import mean_of
from broker_coordinator.aggregation.quarantine import Judged, Quarantine, Sent, Suspicion
from broker_coordinator.aggregation.selection import Told, Utilities
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import Recall
from broker_coordinator.aggregation.version import Version, version_of
from broker_coordinator.serving.waiting import WaitingPayload
from bundle_runtime.bundle import Bundle
from fleet_protocol.codec import Grid, read_weights
from fleet_protocol.cohort import EVERYONE, RoundDraws
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Manifest, Selection
from fleet_protocol.task_description import TaskDescription

ALONE_SECONDS = 2.0
"""After a version, that payloads wait for others to go along with: then they make the next one, before devices begin
again with weights that lack them."""

MOVED_BY_ITS_BUFFER = (Recall.NOTHING, Recall.RECENT_UPDATES)
"""A version of which nothing moves the weights but what the buffer holds."""


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A version that is made but not committed: of the `update_count` oldest waiting updates, the last of them at
    `last_position`. `mean_loss` is None where the kind tells no loss. `noise` is the series with
    its own seed, where it hides each device.
    """

    version: Version
    state: ServerState
    participants: Participants
    watch: Watch
    update_count: int
    last_position: int
    median_staleness: float
    mean_loss: float | None
    noise: NoiseSeries | None = None


@dataclass(slots=True)
class ServedTask:
    """The newest version, its optimiser state, and what waits for the next, in journal order.

    An update is a payload of the kind that the task's versions are made from, and `consumer` is that kind's.

    `grid` is what versions are rounded to before they are published, if the task asks for it. `began` is when the
    newest version was made, or first read, in seconds on the caller's clock. `generation` is for the manifest.
    `participants` are the devices that the size of the buffer follows, where the task leaves it to them; while few
    versions were made since `first_version`, as many as `approved` gives. `senders` are those of the last updates that
    versions hold, oldest first. `watch` is on training that may collapse. `draws` are of the round that a manifest was
    last asked for. The version `wanted_version` takes what waits, even too few.

    Of a task whose versions hide each device, `noise` is that of its sums so far, `participations` say in which of
    them devices' updates count, and `draw_seed` gives the secret seed of the next one's. Of one that selects devices,
    `utilities` are what is known of them. Of one that holds suspicious updates back, `quarantine` is what they are
    compared with.
    """

    bundle: Bundle
    consumer: AnyVersionConsumer
    newest: Version
    state: ServerState
    grid: Grid | None = None
    waiting: deque[WaitingPayload] = field(default_factory=deque)
    paused: bool = False
    began: float | None = None
    asks_everyone: bool = False
    generation: int = 0
    participants: Participants = field(default_factory=Participants)
    watch: Watch = field(default_factory=Watch)
    first_version: int = 0
    wanted_version: int = 0
    approved: Callable[[], int] = int
    senders: deque[str] = field(default_factory=lambda: deque(maxlen=UPDATES_LOOKED_AT))
    draws: RoundDraws | None = None
    noise: NoiseSeries = NO_NOISE
    participations: Participations = field(default_factory=dict)
    draw_seed: Callable[[], bytes] = no_seed
    utilities: Utilities = field(default_factory=Utilities)
    quarantine: Quarantine = field(default_factory=Quarantine)
    _selected: tuple[int, Selection | None] = (-1, None)

    @property
    def buffer_size(self) -> int:
        """Updates that the next version takes."""
        if not self._follows_fleet:
            return self.consumer.buffer_size(self.description)
        return self.newest.buffer_size or self.participants.buffer_size(self.approved())

    @property
    def description(self) -> TaskDescription:
        """The content of the bundle's `task.json`."""
        return self.bundle.description

    def manifest(self, devices: Callable[[], Iterable[str]]) -> Manifest:
        """What devices are told; where a task works in rounds, `devices` gives those that could take part."""
        plan = self.description.aggregation
        below = EVERYONE
        if plan.strategy == "fedavg" and not self.asks_everyone:
            wanted = math.ceil(plan.over_selection * self.buffer_size)
            below = self._round_draws().asking(wanted, devices())
        newest, selection = self.newest, self.selection
        return Manifest(
            newest.number, self.bundle.hash, newest.weights_hash, below, self.generation, selection=selection
        )

    @property
    def selection(self) -> Selection | None:
        """What devices are asked for; None where nothing is selected by, or nobody has sent anything. The same until
        there is another version, or its patience is over.
        """
        plan = self.description.selection
        if plan is None:
            return None
        if self.asks_everyone:
            return self.utilities.everyone()
        number, found = self._selected
        if number != self.newest.number:
            number = self.newest.number
            since_first = number - self.first_version
            found = self.utilities.selection(
                plan, self.description.task, number, versions=since_first, buffer_size=self.buffer_size
            )
            self._selected = number, found
        return found

    def _round_draws(self) -> RoundDraws:
        """Of the round that is on: a manifest is made again for every device that comes."""
        if self.draws is None or self.draws.version != self.newest.number:
            self.draws = RoundDraws(self.description.task, self.newest.number)
        return self.draws

    def deadline(self) -> float | None:
        """When the next version is made although its buffer is not full, or, if nobody has reported until then, when
        every device is asked; None where there is no limit, or nothing to do at it.
        """
        found = (self._version_deadline(), self._patience_ends())
        return min((each for each in found if each is not None), default=None)

    def _patience_ends(self) -> float | None:
        """When devices that were not selected may train too; None where all may."""
        plan = self.description.selection
        if plan is None or self.began is None or (selection := self.selection) is None or selection.takes_everybody:
            return None
        return self.began + self.utilities.pace.patience(plan.patience_seconds)

    def _version_deadline(self) -> float | None:
        limit = self._longest_wait()
        if not limit or self.began is None or (self.asks_everyone and not self.waiting):
            return None
        return self.began + limit

    def _longest_wait(self) -> float:
        """In seconds, 0 without a limit. What goes along with others and finds none has come too late for its own, and
        makes a version by itself, except where that would also move by what is remembered.
        """
        limit = self.description.longest_wait_seconds
        is_alone = self.waiting and not any(self.consumer.take_place(each.facts) for each in self.waiting)
        if is_alone and self.consumer.recall(self.description) in MOVED_BY_ITS_BUFFER:
            return min(limit or ALONE_SECONDS, ALONE_SECONDS)
        return limit

    def ask_everyone(self, now: float) -> bool:
        """Let the manifest ask every device if the deadline has passed without a report, or the patience with those
        that are selected is over; whether it changes now.
        """
        patience, deadline = self._patience_ends(), None if self.waiting else self._version_deadline()
        if all(each is None or now < each for each in (patience, deadline)):
            return False
        self.asks_everyone = True
        return True

    def next_version(self, now: float) -> NextVersion | None:
        """The version that follows, or None while the buffer is not full and has time left.

        Raises:
            Exception: it can't be made of the `buffer`.
        """
        self.began = now if self.began is None else self.began
        if not self._is_due(now):
            return None
        buffer = self.buffer()
        participants = self._participants_after(buffer)
        told = [loss(waiting.facts) for waiting in buffer] if (loss := self.consumer.loss) else []
        losses = [loss for loss in told if loss is not None]
        with np.errstate(all="ignore"):  # `check` says what matters of it
            items, noise = self._items(buffer)
            state = self.consumer.next_state(self.state, items, self.description)
        return NextVersion(
            replace(self.check(state), buffer_size=self._size_by(participants)),
            state,
            participants,
            self.watch.after(self.newest.number + 1, losses),
            update_count=len(buffer),
            last_position=buffer[-1].position,
            median_staleness=median(waiting.staleness for waiting in buffer),
            mean_loss=mean_of(losses) if losses else None,
            noise=noise,
        )

    def _items(self, buffer: Sequence[WaitingPayload]) -> tuple[list[Any], NoiseSeries | None]:
        """What the next version is made of; of one that hides each device, with noise of a seed drawn now."""
        items = [waiting.item for waiting in buffer]
        if (plan := self.description.device_privacy) is None:
            return items, None
        noise = self.noise.after(self.draw_seed(), plan)
        return [*items, noise.noise], noise

    @property
    def why_no_more(self) -> str:
        """Why no more versions are made, in words; empty while some are."""
        plan = self.description.device_privacy
        return "" if plan is None else why_spent(plan, self.noise.made, renewed=self.noise.renewed)

    def out_of_turn(self) -> dict[int, str]:
        """By position, what must not count in the next version, and why: admission has foreseen another one for it, as
        something was set aside meanwhile.
        """
        plan = self.description.device_privacy
        if plan is None:
            return {}
        found, seen = {}, dict[str, Participation]()
        for each in self.buffer():
            before = seen.get(each.device) or self.participations.get(each.device, Participation())
            try:
                require_turn(each.device, self.description.task, plan, before, self.noise.made + 1)
            except ProtocolError as error:
                found[each.position] = str(error)
            else:
                seen[each.device] = before.again(self.noise.made + 1)
        return found

    def suspicions(self) -> dict[int, Suspicion]:
        """By position, what of the `buffer` is suspicious and was not known to be. Trusted devices are never."""
        plan = self.description.aggregation
        if plan.suspects is None:
            return {}
        trusted = plan.rule.trusted_devices if plan.rule else ()
        buffer = [each for each in self.buffer() if each.device not in trusted]
        judged = [Judged(each.device, _sent(each), each.suspicion) for each in buffer]
        found = self.quarantine.suspicions(judged, self.state.weights.size, plan.suspects)
        return {buffer[place].position: each for place, each in found.items()}

    def hold(self, suspicions: Mapping[int, Suspicion]) -> None:
        """Let those that are held wait no longer, and note what is known of the others."""
        held = {position for position, each in suspicions.items() if each.is_held}
        self.quarantine.held_back(len(held))
        self.drop(held)
        reasons = {position: each.reason for position, each in suspicions.items()}
        self.waiting = deque(
            msgspec.structs.replace(each, suspicion=reasons.get(each.position, each.suspicion)) for each in self.waiting
        )

    def _is_due(self, now: float) -> bool:
        if self.why_no_more:
            return False
        if self._full_at() is not None or (self.waiting and self.newest.number < self.wanted_version):
            return True
        if self._follows_fleet and self._has_gone_round():
            return True
        deadline = self._version_deadline()
        return bool(self.waiting) and deadline is not None and now >= deadline

    def _has_gone_round(self) -> bool:
        """Counting those that take a place looks at all that wait: it comes last."""
        if not has_gone_round(len(self.waiting), self._last_senders()):
            return False
        taken = sum(self.consumer.take_place(each.facts) for each in self.waiting)
        return has_gone_round(taken, self._last_senders())

    def _last_senders(self) -> Iterator[str]:
        """Those of updates that take a place, newest first."""
        takes_place = self.consumer.take_place
        waiting = (each.device for each in reversed(self.waiting) if takes_place(each.facts))
        return chain(waiting, reversed(self.senders))

    @property
    def _follows_fleet(self) -> bool:
        return self.description.aggregation.buffer_size is None

    def buffer(self) -> list[WaitingPayload]:
        """What the next version is made of: the oldest that wait, or all where they fill no buffer."""
        return list(islice(self.waiting, self._full_at()))

    def _full_at(self) -> int | None:
        if len(self.waiting) < self.buffer_size:
            return None
        return full_at((self.consumer.take_place(each.facts) for each in self.waiting), self.buffer_size)

    def check(self, state: ServerState) -> Version:
        """The version with a state that was computed.

        Raises:
            ArithmeticError: a weight or a moment is infinite or not a number: no version could follow.
            ProtocolError: likewise, of the weights as they are rounded.
        """
        if not (np.isfinite(state.weights).all() and np.isfinite(state.moments).all()):
            raise ArithmeticError("weights or the server optimiser's moments would no longer be finite")
        version = version_of(self.description, state, self.grid)
        if self.grid is not None:
            read_weights(version.weights, self.description.version.parameters)
        return version

    def _size_by(self, participants: Participants) -> int | None:
        """Of the buffer after the next version; None where the task says it."""
        if not self._follows_fleet:
            return None
        is_new = self.newest.number + 1 - self.first_version < VERSIONS_LOOKED_AT
        return participants.buffer_size(self.approved() if is_new else 0)

    def _participants_after(self, buffer: Iterable[WaitingPayload]) -> Participants:
        """Those once a version is made of the buffer; the same where nothing follows them."""
        if not self._follows_fleet:
            return self.participants
        newest = self.newest.number
        return self.participants.after(newest + 1, {each.device: newest - each.staleness for each in buffer})

    def drop(self, positions: Container[int]) -> None:
        """Let these wait no longer."""
        self.waiting = deque(each for each in self.waiting if each.position not in positions)

    def go_back(self, version: Version, state: ServerState) -> None:
        """Take over a version that restores an older one."""
        self.newest = version
        self.state = state
        self.watch = self.watch.anew()

    def advance(self, made: NextVersion, now: float) -> None:
        """Take over a version that is committed."""
        self.newest = made.version
        self.state = made.state
        self.participants = made.participants
        self.watch = made.watch
        plan = self.description.selection
        if plan is not None and self.began is not None:
            self.utilities.version_made(max(0.0, now - self.began), self.buffer_size, in_time=not self.asks_everyone)
        self.began = now
        self.asks_everyone = False
        for _ in range(made.update_count):
            waiting = self.waiting.popleft()
            device = waiting.device
            self.senders.append(device)
            if (told := told_by(self.description, waiting.facts, waiting.staleness)) is not None:
                self.utilities.note(device, told)
            if self.description.aggregation.suspects is not None:
                self.quarantine.note(device, _sent(waiting), suspicious=bool(waiting.suspicion))
            if made.noise is not None:
                before = self.participations.get(device, Participation())
                self.participations[device] = before.again(made.noise.made)
        if made.noise is not None:
            self.noise = made.noise

    def go_on_from(self, before: "ServedTask") -> None:
        """Take over from the same task, as it was before it was read again, what no journal holds: how long its version
        has waited, and what is known of its pace.
        """
        is_same = before.bundle.hash == self.bundle.hash and before.generation == self.generation
        if not is_same or before.newest.number != self.newest.number:
            return
        self.began = before.began
        self.asks_everyone = before.asks_everyone
        self.utilities.pace = before.utilities.pace
        self._selected = before._selected


def _sent(update: WaitingPayload) -> Sent:
    return Sent(update.facts.norm, update.item.delta)


def told_by(task: TaskDescription, facts: Any, staleness: int) -> Told | None:
    """What an update tells of its device's utility; None where the task does not select, or it tells no loss.

    The samples are those that the device declared, which it knows itself, and not how many of them count.
    """
    if task.selection is None or facts.loss is None:
        return None
    samples = min(facts.declared or facts.samples, task.aggregation.max_samples)
    return Told(task.selection.utility(samples, facts.loss), staleness)
