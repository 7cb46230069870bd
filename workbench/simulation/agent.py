"""One agent in virtual time: the shipped life cycle, guards, error feedback, codec, envelopes and receipt rules.

What is modelled here is what the shipped shells get from asyncio, SQLite and MQTT: when things happen, what survives a
crash (everything but a running round), and what is sent again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from broker_coordinator.admission.decisions import Message
from edge_agent.core.guards import Readings, refusal
from edge_agent.core.lifecycle import Event, Lifecycle, State
from edge_agent.core.round_participation import why_not_asked
from edge_agent.shell.identity import Identity
from edge_agent.shell.postbox import FIRST_RECEIPT_SECONDS, LAST_RECEIPT_SECONDS, REMEDIES, Remedy
from edge_agent.shell.rounds import update_payload
from edge_agent.training.compression import pack, remember
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import (
    BLOB_REQUEST,
    ENROLMENT,
    WEIGHTS_REQUEST,
    BlobRequest,
    Enrolment,
    Outcome,
    Presence,
    PresenceState,
    Receipt,
    WeightsRequest,
    encode_payload,
)
from fleet_protocol.limits import MAX_CONTROL_BYTES
from workbench.simulation.conditions import DAY_SECONDS, FleetMember
from workbench.simulation.world import PublishedVersion, SimulatedWorld

FLOPS_PER_WEIGHT_AND_SAMPLE = 6
"""Of a dense layer: a multiplication and an addition, once forward and twice backward."""

ANY_BLOB = encode_payload(BlobRequest(bytes(32), []))
"""A request for all chunks of a blob, as long as any other."""


class Wakes(Protocol):
    """Why agents wake: whoever implements it calls `trigger` on those that are `available`."""

    def idle(self, agent: "SimulatedAgent") -> None:
        """`agent` has started, has come to the end of a round, or was refused one a while ago."""
        ...

    def settled(self, agent: "SimulatedAgent") -> None:
        """The last update of `agent` that was waiting has its receipt."""
        ...


@dataclass(slots=True)
class _Waiting:
    """An update that waits for its receipt."""

    packed: bytes
    envelope: bytes


class SimulatedAgent:
    """Device `number` of the fleet; `wakes` decides when it starts a round."""

    __slots__ = (
        "_enrolled",
        "_held",
        "_identity",
        "_life",
        "_lifecycle",
        "_member",
        "_on",
        "_outbox",
        "_returned",
        "_rounds",
        "_sequence",
        "_trained_on",
        "_wakes",
        "_world",
        "connected",
        "new_samples",
        "number",
        "stored_samples",
    )

    def __init__(
        self,
        number: int,
        member: FleetMember,
        identity: Identity,
        around: SimulatedWorld,
        wakes: Wakes,
    ) -> None:
        self.number = number
        self.connected = False
        self.stored_samples = 0
        self.new_samples = 0
        self._member, self._identity, self._world, self._wakes = member, identity, around, wakes
        self._lifecycle = Lifecycle()
        self._life = 0
        self._on = False
        self._enrolled = False
        self._sequence = 0
        self._rounds = 0
        self._returned: list[bytes] = []
        self._outbox: dict[bytes, _Waiting] = {}
        self._held: int | None = None
        self._trained_on: int | None = None

    @property
    def available(self) -> bool:
        """Whether a trigger would start a round."""
        return self._on and self._lifecycle.state is State.SLEEPING

    @property
    def updates_made(self) -> int:
        """Rounds that ended in an update."""
        return self._rounds

    @property
    def updates_waiting(self) -> int:
        """Of them, those without a receipt."""
        return len(self._outbox)

    @property
    def member(self) -> FleetMember:
        """What the device can do and bear."""
        return self._member

    def power_on(self) -> None:
        """The device starts, or starts again."""
        conditions, queue = self._member.conditions, self._world.queue
        if (wait := conditions.seconds_until_open(queue.now)) > 0:
            queue.after(wait, self.power_on)
            return
        self._on = True
        self._identity.boot += 1
        closing, crash = conditions.seconds_until_closed(queue.now), math.inf
        if conditions.crashes_per_day > 0:
            crash = self._world.generator.exponential(DAY_SECONDS / conditions.crashes_per_day)
        if min(closing, crash) < math.inf:
            self.later(min(closing, crash), partial(self._power_off, crashed=crash < closing))
        if self._outbox or self._world.always_connected:
            self.connect()
        self._wakes.idle(self)

    def connect(self) -> None:
        """Join the broker: who this is, what is current, and whatever still waits for its receipt."""
        if self.connected:
            return
        self.connected = True
        around, identity = self._world, self._identity
        around.connected += 1
        around.hear_manifest()
        # The last will travels with the connection, and has the size of the word that it takes back.
        presence = identity.sign_presence(encode_payload(Presence(PresenceState.ONLINE, identity.boot)))
        around.ledger.up["presence"] += 2 * len(presence)
        if not self._enrolled:
            introduction = Enrolment(identity.public_key, "simulated", "simulated", [around.task.task])
            self._send("enrolment", identity.sign_control(ENROLMENT, encode_payload(introduction)))
        for digest in self._outbox:
            self._deliver(digest)

    def disconnect(self) -> None:
        """Leave the broker."""
        if self.connected:
            self.connected = False
            self._world.connected -= 1

    def trigger(self) -> None:
        """Enough samples have come: decide, fetch, train."""
        self._lifecycle.advance(Event.TRIGGER_FIRED)
        if refusal(self._member.guards, Readings(self.stored_samples, len(self._outbox), None, None, None)):
            self._lifecycle.advance(Event.GUARD_REFUSED)
            self._world.ledger.guard_refusals += 1
            self.later(self._member.guards.recheck_seconds, partial(self._wakes.idle, self))
            return
        self._lifecycle.advance(Event.GUARDS_AGREED)
        self.connect()
        version = self._world.newest
        if self._world.always_connected and self._why_not_asked(version):
            self._lifecycle.advance(Event.VERSION_UNAVAILABLE)
            self.later(self._member.guards.recheck_seconds, partial(self._wakes.idle, self))
            return
        self._request(version.number)
        fetched = self._world.fetch(self._held)
        self.later(self._member.conditions.download_seconds(fetched), partial(self._fetched, version))

    def _why_not_asked(self, version: PublishedVersion) -> str | None:
        device = self._identity.device
        return why_not_asked(self._world.task, version.number, device, version.selection_threshold, self._trained_on)

    def receive(self, signed: bytes) -> None:
        """Act on what came down on the device's own topic; a device that is off hears nothing."""
        if not self.connected:
            return
        payload, _ = self._identity.open_from_coordinator(self._identity.down_topic, signed, MAX_CONTROL_BYTES)
        assert isinstance(payload, Receipt)  # noqa: S101 - nothing else is sent there
        waiting = self._outbox.get(payload.digest)
        if waiting is None:
            self._enrolled = self._enrolled or payload.outcome is Outcome.ACCEPTED
        elif payload.outcome is Outcome.ACCEPTED:
            del self._outbox[payload.digest]
        elif REMEDIES.get(Reason(payload.reason), Remedy.RETURN_TO_RESIDUAL) is Remedy.RETURN_TO_RESIDUAL:
            self._returned.append(self._outbox.pop(payload.digest).packed)
        if waiting is not None and not self._outbox:
            self._wakes.settled(self)
        if not self._outbox and self._lifecycle.state is State.SLEEPING and not self._world.always_connected:
            self.disconnect()

    def _request(self, version: int) -> None:
        """Ask for what lacks, as `VersionFollower` does: the bundle's files, then the version."""
        identity, task = self._identity, self._world.task
        blobs = self._world.downlink.bundle_files if self._held is None else 0
        requests = []
        if version != self._held and task.downlink.packs(version):
            wanted = encode_payload(WeightsRequest(version, self._held, []))
            requests.append(identity.sign_control(WEIGHTS_REQUEST, wanted, task.task))
        elif version != self._held:
            blobs += 1
        requests += [identity.sign_control(BLOB_REQUEST, ANY_BLOB) for _ in range(blobs)]
        self._world.ledger.up["request"] += sum(map(len, requests))

    def _fetched(self, version: PublishedVersion) -> None:
        self._lifecycle.advance(Event.VERSION_READY)
        self._held = version.number
        plan, conditions = self._world.task.training, self._member.conditions
        work = FLOPS_PER_WEIGHT_AND_SAMPLE * self._world.task.parameter_count * plan.batch_size * plan.steps
        seconds = conditions.start_seconds + work / (1e6 * conditions.training_mflops)
        self.later(seconds, partial(self._train, version))

    def _train(self, version: PublishedVersion) -> None:
        task, workload = self._world.task, self._world.workload
        samples = workload.samples(self.number)
        plan = plan_batches(len(samples.labels), task.training.steps, task.training.batch_size, self._rounds)
        trained, losses = workload.engine.train(version.weights, samples, plan, Rates.planned(task.training))
        memory = remember(task, self._world.residuals.get(self.number), self._returned)
        total = memory.offer(trained - version.weights)
        if not (np.isfinite(losses).all() and np.isfinite(total).all()):
            self._lose_round(Event.ROUND_FAILED)
            self.later(self._member.guards.recheck_seconds, partial(self._wakes.idle, self))
            return
        packed = pack(total, memory, task, self._rounds)
        result = TrainingResult(
            packed, b"", len(samples.labels), task.training.steps, 0, float(losses.mean()), life=memory.life
        )
        self._world.residuals.put(self.number, memory.state())
        self._returned.clear()
        self._trained_on = version.number
        self._rounds += 1
        self.new_samples = 0
        self._sequence += 1
        envelope, digest = self._identity.sign_update(self._sequence, task.task, version.number, update_payload(result))
        self._outbox[digest] = _Waiting(packed, envelope)
        self._lifecycle.advance(Event.ROUND_SPOOLED)
        self._deliver(digest)
        self._wakes.idle(self)

    def _deliver(self, digest: bytes, patience: float = FIRST_RECEIPT_SECONDS) -> None:
        """Send an update, and again while no receipt comes."""
        if digest not in self._outbox:
            return
        self._send("update", self._outbox[digest].envelope)
        self.later(patience, partial(self._deliver, digest, min(2 * patience, LAST_RECEIPT_SECONDS)))

    def _send(self, kind: str, signed: bytes) -> None:
        message = Message(self._identity.up_topic, signed)
        self._world.send(kind, message, self._member.conditions, self.receive)

    def _lose_round(self, event: Event) -> None:
        self._lifecycle.advance(event)
        self._world.ledger.rounds_lost += 1

    def _power_off(self, *, crashed: bool) -> None:
        self._life += 1
        self._on = False
        self.disconnect()
        interrupted = {State.FETCHING: Event.VERSION_UNAVAILABLE, State.TRAINING: Event.ROUND_FAILED}
        if event := interrupted.get(self._lifecycle.state):
            self._lose_round(event)
        self._world.ledger.crashes += crashed
        self._world.queue.after(self._member.conditions.restart_seconds if crashed else 0.0, self.power_on)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan what only happens if the device is not switched off before."""
        life = self._life
        self._world.queue.after(seconds, lambda: action() if self._life == life else None)
