"""One simulation without a coordinator: fleet, task, workload and topology in, history and summary out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle_runtime.bundle import Bundle
from edge_agent.core.gossip.neighbours import Neighbours
from edge_agent.training.gossip import Peer, local_task
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip import Topology, topology
from fleet_protocol.gossip_plan import GossipPlan, MixingRule, check_gossip, check_plan
from fleet_protocol.kinds import COPY_REQUEST, TOLD, CopyRequest, PayloadKind, Told, encode_payload
from fleet_protocol.limits import MIB
from workbench.simulation.conditions import FleetMember
from workbench.simulation.event_queue import Alarm, EventQueue
from workbench.simulation.gossip.device import GossipDevice
from workbench.simulation.gossip.summary import GossipPoint, GossipSummary
from workbench.simulation.ledger import Ledger
from workbench.simulation.messages import SignedMessages
from workbench.simulation.simulation import EVENT_STREAM, Options, life_of
from workbench.simulation.wake_policies import WakeOnSamples
from workbench.simulation.workload import Workload

CHANGE, WHOLE_COPY, REQUEST = "change", "whole copy", "request"

SCORING = 4
"""Float64 values for each parameter, while models are scored: the mean, and a difference from it, squared."""
MIXING = 3
"""The same for each model while a device mixes: the differences of its neighbours, and a vote on them."""

Tamper = Callable[[int, Told], Told]
"""What the device with this number tells in place of what it would."""


def mean_model(models: Sequence[FloatVector]) -> NDArray[np.float64]:
    """The mean of models f32[P], float64 [P], without a second copy of all of them."""
    total = np.zeros_like(models[0], dtype=np.float64)
    for model in models:
        total += model
    return total / len(models)


def as_told(_device: int, told: Told) -> Told:
    """What an honest device tells."""
    return told


@dataclass(frozen=True, slots=True)
class GossipResult:
    """What a simulation gives."""

    summary: GossipSummary
    history: list[GossipPoint]


class GossipSimulation:
    """A fleet of which each device exchanges models with its neighbours alone; `options` as of `Simulation`, where
    updates are devices' rounds.

    Raises:
        ConfigurationError: the task needs a coordinator, there are too few devices for the topology, the rule does not
            go with it, or the copies of neighbours' models don't fit into the memory allowed.
    """

    def __init__(
        self,
        fleet: Sequence[FleetMember],
        bundle: Bundle,
        workload: Workload,
        options: Options,
        plan: GossipPlan,
        *,
        tamper: Tamper = as_told,
    ) -> None:
        task = bundle.description
        check_gossip(task, task.task)
        check_plan(plan, task.task)
        connected = topology(plan.topology, len(fleet), plan.seed)
        self._plan = plan
        self._options = options
        self._tamper = tamper
        self._messages = SignedMessages(options.seed)
        self._history: list[GossipPoint] = []
        self._reached: GossipPoint | None = None
        self._missed = 0
        self._initial = read_weights(bundle.weights, task.parameters)
        self._check_memory([len(connected.neighbours(place)) for place in range(len(fleet))])
        self._shared = task
        self.task = local_task(task)
        self.workload = workload
        self.ledger = Ledger()
        self.queue = EventQueue(len(fleet))
        self.queue.ring = self._ring
        self.generator = np.random.default_rng((options.seed, EVENT_STREAM))
        self.wake = WakeOnSamples(self.generator, self.queue, len(fleet))
        self.devices = [
            GossipDevice(number, member, self._peer(number, connected, plan.rule), self)
            for number, member in enumerate(fleet)
        ]

    def _peer(self, number: int, connected: Topology, rule: MixingRule) -> Peer:
        """A device's name in the roster is its number."""
        neighbours = Neighbours(connected, tuple(map(str, range(connected.devices))), number)
        return Peer(self._shared, neighbours, self._initial, rule=rule, life=life_of(self._options.seed, number))

    def run(self, tick: Callable[[float], None] = lambda _: None) -> GossipResult:
        """Run to the end; `tick` is called now and then with the virtual seconds that are over."""
        self._note_point()
        for device in self.devices:
            device.switch()
        self.queue.run(self._options.seconds, lambda: tick(self.queue.now))
        if self._history[-1].rounds < self.ledger.updates:
            self._note_point()
        return GossipResult(self._summary(), self._history)

    def publish(self, sender: int, said: Told | CopyRequest) -> None:
        """See `Neighbourhood`: it goes up once, and from the broker to each."""
        if isinstance(said, CopyRequest):
            what, kind = REQUEST, COPY_REQUEST
        else:
            said = self._tamper(sender, said)
            what, kind = WHOLE_COPY if said.whole else CHANGE, TOLD
        size = self._signed_bytes(sender, kind, said)
        self.ledger.up[what] += size
        upload = self.devices[sender].member.conditions.upload_seconds(size)
        for receiver in map(int, self.devices[sender].peer.neighbours):
            seconds = upload + self.devices[receiver].member.conditions.download_seconds(size)
            self.queue.after(seconds, partial(self._deliver, sender, receiver, said, what, size))

    def round_ended(self) -> None:
        """See `Neighbourhood`."""
        self.ledger.updates += 1
        if self.ledger.updates % self._options.score_every == 0:
            self._note_point()
        is_enough = self._options.stop_at_target and self._reached
        if is_enough or self.ledger.updates == self._options.updates:
            self.queue.stop()

    def _deliver(self, sender: int, receiver: int, said: Told | CopyRequest, what: str, size: int) -> None:
        if not self.devices[receiver].is_on:
            self._missed += 1
            return
        self.ledger.down[what] += size
        self.devices[receiver].hear(sender, said)

    def _signed_bytes(self, sender: int, kind: PayloadKind, payload: msgspec.Struct) -> int:
        """As large as a signed message of that kind with this payload."""
        return self._messages.end(sender).request_bytes(kind, encode_payload(payload), self.task.task)

    def _ring(self, alarm: Alarm, number: int) -> None:
        device = self.devices[number]
        if alarm is Alarm.SAMPLES:
            self.wake.arrive(device)
        else:
            device.switch()

    def _check_memory(self, neighbours: Sequence[int]) -> None:
        """Each device has its model, its public copy and one of each neighbour. One device mixes at a time, or all are
        scored, one after the other.
        """
        kept = sum(2 + count for count in neighbours) * np.dtype(np.float32).itemsize
        at_once = max(SCORING, MIXING * (1 + max(neighbours))) * np.dtype(np.float64).itemsize
        needed = (kept + at_once) * self._initial.size / MIB
        if needed > self._options.memory_mib:
            raise ConfigurationError(
                f"devices' models, the copies of their neighbours' and what mixing and scoring them takes are"
                f" {needed:.0f} MiB, more than --memory-mib {self._options.memory_mib}: raise it, or take fewer"
                " --devices or --topology ring"
            )

    def _note_point(self) -> None:
        models = [device.peer.model for device in self.devices]
        mean = mean_model(models)
        point = GossipPoint(
            self.queue.now,
            self.ledger.updates,
            self.ledger.up.total(),
            self.ledger.down.total(),
            score=self.workload.score(mean.astype(np.float32)),
            worst=min(map(self.workload.score, models)),
            consensus_distance=float(np.sqrt(np.mean([np.square(model - mean).sum() for model in models]))),
            way=float(np.linalg.norm(mean - self._initial)),
        )
        self._history.append(point)
        target = self._options.target
        if self._reached is None and target is not None and point.rounds and point.score >= target:
            self._reached = point

    def _summary(self) -> GossipSummary:
        ledger = self.ledger
        return GossipSummary(
            devices=len(self.devices),
            topology=self._plan.topology,
            rule=self._plan.rule,
            seed=self._options.seed,
            virtual_seconds=self.queue.now,
            measure=self.workload.measure,
            first=self._history[0],
            last=self._history[-1],
            target=self._options.target,
            reached=self._reached,
            one_answer=self.workload.one_answer,
            bytes_up=dict(sorted(ledger.up.items())),
            bytes_down=dict(sorted(ledger.down.items())),
            missed=self._missed,
            refused=dict(sorted(ledger.refused.items())),
            crashes=ledger.crashes,
            rounds_lost=ledger.rounds_lost,
            rounds_diverged=ledger.rounds_diverged,
            rounds_withheld=dict(sorted(ledger.rounds_withheld.items())),
            guard_refusals=dict(sorted(ledger.guard_refusals.items())),
            devices_short_of_samples=sum(
                not device.member.holds_enough(self.workload.count(device.number)) for device in self.devices
            ),
        )
