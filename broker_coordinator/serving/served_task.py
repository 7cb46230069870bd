"""One task as it is served: its newest version, and the updates that wait for the next. Pure."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, median

from broker_coordinator.admission.fleet_view import TaskProgress
from broker_coordinator.admission.norm_bound import NormQuantile
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state, next_state
from broker_coordinator.storage.records import Version
from bundle_runtime.bundle_folder import Bundle
from fleet_protocol.bundle import TaskDescription, blob_hash
from fleet_protocol.codec import Grid, read_weights, write_weights
from fleet_protocol.cohort import EVERYONE, asking
from fleet_protocol.kinds import Manifest


@dataclass(frozen=True, slots=True)
class WaitingUpdate:
    """A journalled update with its place in the journal, and the device's mean loss in training."""

    position: int
    update: BufferedUpdate
    loss: float


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A version that is made but not committed: the `holds` oldest waiting updates, the last at `last_position`."""

    version: Version
    state: ServerState
    holds: int
    last_position: int
    median_staleness: float
    mean_loss: float


@dataclass(slots=True)
class ServedTask:
    """The newest version, its optimiser state, and what waits for the next, in journal order.

    `grid` is what versions are rounded to before they are published, if the task asks for it. `began` is when the
    newest version was made, or first looked at, in seconds on the clock of whoever calls.
    """

    bundle: Bundle
    newest: Version
    state: ServerState
    grid: Grid | None = None
    waiting: deque[WaitingUpdate] = field(default_factory=deque)
    paused: bool = False
    began: float | None = None
    asks_everyone: bool = False

    @property
    def description(self) -> TaskDescription:
        """The content of the bundle's `task.json`."""
        return self.bundle.description

    def progress(self, norms: NormQuantile | None = None) -> TaskProgress:
        """Where the task stands once every full buffer that waits is made into a version."""
        full, buffered = divmod(len(self.waiting), self.description.aggregation.buffer_size)
        return TaskProgress(self.description, self.newest.number + full, buffered, self.paused, norms)

    def manifest(self, devices: Callable[[], Iterable[str]]) -> Manifest:
        """What devices are told; where a task works in rounds, `devices` gives those that could take part."""
        plan, below = self.description.aggregation, EVERYONE
        if plan.strategy == "fedavg" and not self.asks_everyone:
            wanted = math.ceil(plan.over_selection * plan.buffer_size)
            below = asking(wanted, self.description.task, self.newest.number, devices())
        return Manifest(self.newest.number, self.bundle.hash, self.newest.weights_hash, below)

    def deadline(self) -> float | None:
        """When the next version is made although its buffer is not full, or, if nobody has reported until then, when
        every device is asked; None where there is no limit, or nothing to do at it.
        """
        limit = self.description.aggregation.round_seconds
        if not limit or self.began is None or (self.asks_everyone and not self.waiting):
            return None
        return self.began + limit

    def ask_everyone(self, now: float) -> bool:
        """Let the manifest ask every device if the deadline has passed without a report; whether it changes now."""
        deadline = self.deadline()
        if self.waiting or deadline is None or now < deadline:
            return False
        self.asks_everyone = True
        return True

    def next_version(self, now: float) -> NextVersion | None:
        """The version that follows, or None while the buffer is not full and has time left."""
        plan = self.description.aggregation
        self.began = now if self.began is None else self.began
        is_late = (deadline := self.deadline()) is not None and now >= deadline
        if len(self.waiting) < (1 if is_late else plan.buffer_size):
            return None
        buffer = list(islice(self.waiting, plan.buffer_size))
        updates = [waiting.update for waiting in buffer]
        state = next_state(self.state, updates, plan)
        return NextVersion(
            version_of(self.description, state, self.grid),
            state,
            holds=len(buffer),
            last_position=buffer[-1].position,
            median_staleness=median(update.staleness for update in updates),
            mean_loss=fmean(waiting.loss for waiting in buffer),
        )

    def advance(self, made: NextVersion, now: float) -> None:
        """Take over a version that is committed."""
        self.newest, self.state, self.began, self.asks_everyone = made.version, made.state, now, False
        for _ in range(made.holds):
            self.waiting.popleft()


def version_of(description: TaskDescription, state: ServerState, grid: Grid | None) -> Version:
    """A version as it is stored: with a `grid`, devices get the rounded weights and the next version the true ones."""
    published = state.weights if grid is None else grid.rounded(state.weights, description.shapes)
    weights = write_weights(published, description.parameters)
    unrounded = b"" if grid is None else state.weights.astype("<f4").tobytes()
    moments = state.moments.astype("<f4").tobytes()
    return Version(description.task, state.version, weights, blob_hash(weights), moments, unrounded)


def version_zero(bundle: Bundle) -> Version:
    """The version that a bundle starts with: on the grid like any other, or without one its own file, byte for byte."""
    description, grid = bundle.description, bundle.grid()
    state = initial_state(read_weights(bundle.weights, description.parameters), description.aggregation)
    if grid is not None:
        return version_of(description, state, grid)
    moments = state.moments.astype("<f4").tobytes()
    return Version(description.task, 0, bundle.weights, blob_hash(bundle.weights), moments)
