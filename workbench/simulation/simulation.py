"""One simulation: fleet, task and workload in, history and summary out. The same input gives the same output."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from bundle_runtime.bundle import Bundle
from edge_agent.training.feedback import recall
from fleet_protocol.codec import encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from workbench.report.privacy_told import Told, told_so_far
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.agent import SimulatedAgent, WakePolicy
from workbench.simulation.fleet import SimulatedFleet
from workbench.simulation.ledger import Point, Summary
from workbench.simulation.masks.helper import mask_helpers
from workbench.simulation.masks.world import MaskedWorld
from workbench.simulation.messages import PlainMessages, SignedMessages, device_name
from workbench.simulation.residuals import Residuals, leaves_nothing
from workbench.simulation.wake_policies import WakeConcurrently, WakeInRounds, WakeOnSamples
from workbench.simulation.workload import Workload
from workbench.simulation.world import SimulatedWorld, Surroundings, Tamper, as_trained

EVENT_STREAM = 2
"""Keeps the random numbers of events apart from those that fleets and workloads are drawn with."""
STARTED_TOGETHER, SECONDS_BETWEEN_STARTS = 10_000, 1.0
"""So many devices start at one time, and the next ones after so long: each is an agent until it has enrolled."""
DEVICES_SCORED = 10
"""Where each has a model of its own."""
NEW_OBJECTS = 1_000_000
"""Between two looks for what leads back to itself: hardly anything does. Python's own 700 would be some twenty agents,
and ten thousand that start together, or the old objects of a large fleet, were looked through again and again."""
LIFE_STREAM = 3
"""Of an error feedback's `life`, which a real device draws at random."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to simulate.

    `concurrent`: so many devices train at any time, or together in rounds if `synchronous`; else each wakes on its own
    samples. The run ends after `seconds` of virtual time, or `updates` accepted ones, or where the score is at least
    `target` if `stop_at_target`. The score is taken after every `score_every` updates. `plain`: messages are not signed
    and not compressed with zstd.
    """

    seed: int
    seconds: float
    updates: int | None = None
    target: float | None = None
    stop_at_target: bool = False
    score_every: int = 10
    concurrent: int | None = None
    synchronous: bool = False
    memory_mib: int = 1024
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation gives."""

    summary: Summary
    history: list[Point]


class Simulation:
    """A fleet that is ready to run; `tamper` as in `world.Surroundings`.

    Raises:
        ConfigurationError: the fleet's residuals don't fit into the memory allowed; or nothing is signed, and the task
            has masks, for which devices sign.
    """

    def __init__(
        self,
        fleet: Sequence[FleetMember],
        bundle: Bundle,
        workload: Workload,
        options: Options,
        *,
        tamper: Tamper = as_trained,
    ) -> None:
        self._options = options
        self._bundle = bundle
        self._began = False
        self._history: list[Point] = []
        self._reached: Point | None = None
        self._concurrent: WakeConcurrently | None = None
        task = bundle.description
        generator = np.random.default_rng((options.seed, EVENT_STREAM))
        messages = PlainMessages(options.seed) if options.plain else SignedMessages(options.seed)
        feedback = recall(task.update, b"", task.trained_count, life=1)
        surroundings = Surroundings(
            workload=workload,
            residuals=Residuals(
                len(fleet),
                0 if leaves_nothing(task.update) else len(feedback.state()),
                options.memory_mib,
                feedback.layout,
            ),
            generator=generator,
            devices=len(fleet),
            always_connected=options.concurrent is None,
            accepted=self._score_now_and_then,
            versioned=self._begin_round,
            encode=messages.updates.encode if isinstance(messages, PlainMessages) else encode_update,
            prepared=messages.updates.prepared if isinstance(messages, PlainMessages) else None,
            life=partial(life_of, options.seed),
            tamper=tamper,
        )
        self._world = _world(bundle, messages, surroundings)
        wake_policy: WakePolicy = WakeOnSamples(generator, self._world.queue, len(fleet))
        if options.concurrent is not None:
            kind = WakeInRounds if options.synchronous else WakeConcurrently
            wake_policy = self._concurrent = kind(options.concurrent, generator)
        self._fleet = SimulatedFleet(
            fleet,
            messages.end,
            self._world,
            wake_policy,
            rows=self._concurrent is None and task.masks is None,
        )

    @property
    def agents(self) -> SimulatedFleet:
        """The fleet."""
        return self._fleet

    @property
    def bundle(self) -> Bundle:
        """The one that the fleet begins with."""
        return self._bundle

    @property
    def world(self) -> SimulatedWorld:
        """What its devices share."""
        return self._world

    def run(
        self, progress: Callable[[Point], None] = lambda _: None, tick: Callable[[float], None] = lambda _: None
    ) -> Result:
        """Run to the end; `progress` is called with every point of the history, and `tick` now and then with the
        virtual seconds that are over.
        """
        self._progress = progress
        queue = self._world.queue
        with _few_collections():
            if not self._began:
                self._begin()
            queue.run(self._options.seconds, lambda: tick(queue.now))
        last = self._history[-1]
        if last.updates < self._world.ledger.updates:
            last = self._score()
        return Result(self._summary(last), self._history)

    def _begin(self) -> None:
        self._began = True
        self._score()
        self._power_on(0, len(self._fleet) if self._concurrent else STARTED_TOGETHER)
        if self._concurrent:
            self._concurrent.begin(self._fleet.awake)

    def _power_on(self, first: int, count: int) -> None:
        """Start so many devices now, and the others behind them."""
        end = min(first + count, len(self._fleet))
        for number in range(first, end):
            self._fleet.power_on(number)
        if end < len(self._fleet):
            self._world.queue.after(SECONDS_BETWEEN_STARTS, partial(self._power_on, end, count))

    def _begin_round(self) -> None:
        if self._concurrent:
            self._concurrent.version_made()

    def _score_now_and_then(self) -> None:
        updates = self._world.ledger.updates
        options = self._options
        if updates % options.score_every == 0:
            self._score()
        if updates == options.updates or (options.stop_at_target and self._reached):
            self._world.queue.stop()

    def _score(self) -> Point:
        world = self._world
        score = self._score_of_models()
        point = world.ledger.point(world.queue.now, world.coordinator.version, score, self._told())
        self._history.append(point)
        target = self._options.target
        if self._reached is None and target is not None and point.updates and score >= target:
            self._reached = point
        self._progress(point)
        return point

    def _score_of_models(self) -> float:
        """That of the shared model or, where devices have models of their own or of a cluster, the mean of some's."""
        world = self._world
        model = world.coordinator.model
        if not self._has_several_models:
            return world.workload.score(model)
        devices = islice(self._fleet.with_other_models(), DEVICES_SCORED)
        models = [self.model_of(agent) for agent in devices]
        return float(np.mean([world.workload.score(each) for each in models or [model]]))

    @property
    def _has_several_models(self) -> bool:
        task = self._world.task
        return bool(task.own_parameters) or (task.clusters is not None and task.clusters.found_by is not None)

    def model_of(self, agent: SimulatedAgent) -> FloatVector:
        """What a device answers with, f32[P]."""
        return agent.model(self._world.coordinator.model_of(agent.cluster))

    def _devices_in_clusters(self) -> dict[int, int]:
        plan = self._world.task.clusters
        if plan is None or plan.found_by is None:
            return {}
        return dict(sorted(Counter(agent.cluster for agent in self._fleet).items()))

    @property
    def model(self) -> FloatVector:
        """The model that the fleet shares, f32[P]."""
        return self._world.coordinator.model

    @property
    def version_to_use(self) -> bytes:
        """The file that `model` is read from."""
        return self._world.coordinator.version_to_use

    def _told(self) -> list[Told]:
        rounds = 0
        if self._world.task.sample_privacy is not None:
            rounds = max((agent.rounds_charged for agent in self._fleet.awake if agent.hides_samples), default=0)
        coordinator = self._world.coordinator
        return told_so_far(self._world.task, rounds=rounds, versions=coordinator.noised_sums, clip=coordinator.clip)

    def _summary(self, last: Point) -> Summary:
        ledger = self._world.ledger
        return Summary(
            devices=len(self._fleet),
            seed=self._options.seed,
            virtual_seconds=self._world.queue.now,
            versions=self._world.coordinator.version,
            updates=ledger.updates,
            measure=self._world.workload.measure + (" of devices' models, mean" if self._has_several_models else ""),
            first_score=self._history[0].score,
            score=last.score,
            heads=self._world.workload.heads(self._world.coordinator.model),
            one_answer=self._world.workload.one_answer,
            told=self._told(),
            target=self._options.target,
            reached=self._reached,
            uplink_bytes=ledger.uplink_bytes,
            total_bytes=ledger.total_bytes,
            bytes_up=dict(sorted(ledger.up.items())),
            bytes_down=dict(sorted(ledger.down.items())),
            staleness=dict(sorted(ledger.staleness.items())),
            refused=dict(sorted(ledger.refused.items())),
            set_aside=ledger.set_aside,
            held=ledger.held,
            tempered=ledger.tempered,
            stopped=ledger.stopped,
            collapses=ledger.collapses,
            crashes=ledger.crashes,
            rounds_lost=ledger.rounds_lost,
            rounds_diverged=ledger.rounds_diverged,
            rounds_withheld=dict(sorted(ledger.rounds_withheld.items())),
            guard_refusals=dict(sorted(ledger.guard_refusals.items())),
            devices_short_of_samples=self._fleet.short_of_samples,
            devices_in_clusters=self._devices_in_clusters(),
        )


@contextmanager
def _few_collections() -> Iterator[None]:
    usual = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _world(bundle: Bundle, messages: PlainMessages | SignedMessages, surroundings: Surroundings) -> SimulatedWorld:
    plan = bundle.description.masks
    if plan is None:
        return SimulatedWorld(bundle, messages.signer, surroundings)
    if not isinstance(messages, SignedMessages):
        raise ConfigurationError("--plain signs nothing, and devices sign what mask helpers look at; leave it out")
    names = map(device_name, range(surroundings.devices))
    helpers = mask_helpers(plan, messages, {name: messages.key(name).verify_key for name in names})
    return MaskedWorld(bundle, messages.signer, surroundings, helpers)


def life_of(seed: int, number: int) -> int:
    """What a device draws when it begins without a memory."""
    return 1 + int(np.random.default_rng((seed, LIFE_STREAM, number)).integers(2**32))
