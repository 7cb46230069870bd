"""One task as it is served: its newest version, and the updates that wait for the next. Pure."""

import math
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import AnyVersionConsumer
from broker_coordinator.admission.participation import Participations, why_spent
from broker_coordinator.aggregation.buffer_size import UPDATES_LOOKED_AT, Participants, full_at
from broker_coordinator.aggregation.collapse import Watch
from broker_coordinator.aggregation.device_privacy.version_noise import NO_NOISE, NoiseSeries, no_seed
from broker_coordinator.aggregation.harm import Harm
from broker_coordinator.aggregation.quarantine import Quarantine
from broker_coordinator.aggregation.selection import Told, Utilities
from broker_coordinator.aggregation.selection_pace import SelectionPace
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.staleness import is_foreseen, staleness_at
from broker_coordinator.aggregation.version import Version, version_of
from broker_coordinator.serving.waiting import WaitingPayload
from bundle_runtime.bundle import Bundle
from fleet_protocol.codec import Grid, read_weights
from fleet_protocol.cohort import EVERYONE, RoundDraws
from fleet_protocol.kinds import Manifest, Selection
from fleet_protocol.task_description import TaskDescription


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
    `utilities` are what is known of them. Of one in which updates may be suspicious, `quarantine` is what they are
    compared with; where they are tempered once devices are harmed, `harm` is what shows it.
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
    harm: Harm = field(default_factory=Harm)
    _selected: tuple[int, Selection | None] = (-1, None)

    @property
    def buffer_size(self) -> int:
        """Updates that the next version takes."""
        if not self.follows_fleet:
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

    @property
    def why_no_more(self) -> str:
        """Why no more versions are made, in words; empty while some are."""
        plan = self.description.device_privacy
        return "" if plan is None else why_spent(plan, self.noise.made, renewed=self.noise.renewed)

    @property
    def follows_fleet(self) -> bool:
        """Whether the size of the buffer does."""
        return self.description.aggregation.buffer_size is None

    def buffer(self) -> list[WaitingPayload]:
        """What the next version is made of: the oldest that wait, or all where they fill no buffer; each with the
        staleness that it counts with.
        """
        return self.oldest(self.full_at())

    def oldest(self, count: int | None) -> list[WaitingPayload]:
        """So many of those that wait, or all; each with the staleness that it counts with."""
        return [self._settled(each) for each in islice(self.waiting, count)]

    def _settled(self, update: WaitingPayload) -> WaitingPayload:
        if is_foreseen(self.description.aggregation):
            return update
        staleness = staleness_at(self.newest.number, update.item.base_version)
        if staleness == update.staleness:
            return update
        item = msgspec.structs.replace(update.item, staleness=staleness)
        return msgspec.structs.replace(update, staleness=staleness, item=item)

    def full_at(self) -> int | None:
        """How many of the oldest that wait fill the buffer; None while they are too few."""
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

    def drop(self, positions: Container[int]) -> None:
        """Let these wait no longer."""
        self.waiting = deque(each for each in self.waiting if each.position not in positions)

    def go_back(self, version: Version, state: ServerState) -> None:
        """Take over a version that restores an older one: what a coordinator has that reads the task again."""
        self.newest = version
        self.state = state
        self.watch = self.watch.anew()
        self.quarantine.begin_anew()
        self.utilities.pace = SelectionPace()

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


def told_by(task: TaskDescription, facts: Any, staleness: int) -> Told | None:
    """What an update tells of its device's utility; None where the task does not select, or it tells no loss.

    The samples are those that the device declared, which it knows itself, and not how many of them count.
    """
    if task.selection is None or facts.loss is None:
        return None
    samples = min(facts.declared or facts.samples, task.aggregation.max_samples)
    return Told(task.selection.utility(samples, facts.loss), staleness)
