"""A device without a coordinator in virtual time: shipped trigger, guards, rounds and gossip, and what is between."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import numpy as np

from edge_agent.core.gossip.state import most_told_bytes
from edge_agent.core.gossip.talk import Talk
from edge_agent.core.guards import MINUTES_OF_A_DAY, Readings
from edge_agent.core.lifecycle import IN_A_ROUND, State
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint
from edge_agent.core.triggers import Trigger
from edge_agent.training.gossip import Peer, end_round
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import Withheld
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import CopyRequest, Told
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.agent import TRIGGER
from workbench.simulation.device.power import Power
from workbench.simulation.device_memory import stored_count
from workbench.simulation.event_queue import EventQueue
from workbench.simulation.ledger import Ledger
from workbench.simulation.round_job import RoundJob, carried_out, round_seconds
from workbench.simulation.wake_policies import WakeOnSamples
from workbench.simulation.workload import Workload

ENCODE: Final = partial(encode_update, zstd=False)
"""A round's result does not travel."""


class Neighbourhood(Protocol):
    """What devices share. `task` is as rounds train it (`local_task`)."""

    queue: EventQueue
    ledger: Ledger
    generator: np.random.Generator
    wake: WakeOnSamples
    task: TaskDescription
    workload: Workload

    def publish(self, sender: int, said: Told | CopyRequest) -> None:
        """Tell all neighbours, or ask one of them."""
        ...

    def round_ended(self) -> None:
        """A device has ended a round."""
        ...


class GossipDevice:
    """Device `number`, which trains when samples have come, as others do. A crash loses the running round alone."""

    __slots__ = (
        "_decisions",
        "_epochs",
        "_newest_sample",
        "_power",
        "_rounds",
        "_trained_through",
        "_world",
        "member",
        "number",
        "peer",
        "talk",
    )

    def __init__(self, number: int, member: FleetMember, peer: Peer, world: Neighbourhood) -> None:
        self.number = number
        self.member = member
        self.peer = peer
        self.talk = self._new_talk()
        self._world = world
        self._power = Power(number, member.conditions, world.queue, world.generator)
        self._epochs = 0.0
        self._newest_sample = 0
        self._trained_through = 0
        self._rounds = 0
        self._decisions = self._new_decisions()

    @property
    def available(self) -> bool:
        """See `TakesSamples`."""
        return self.is_on and self._decisions.state is State.SLEEPING

    @property
    def missing_samples(self) -> int:
        """See `TakesSamples`."""
        return self._decisions.missing_samples(self._world.task.task)

    @property
    def samples_per_hour(self) -> float:
        """See `TakesSamples`."""
        return self.member.conditions.samples_per_hour

    @property
    def is_on(self) -> bool:
        """Whether it hears what is said."""
        return self._power.is_on

    def take_samples(self, count: int) -> None:
        """See `TakesSamples`."""
        self._newest_sample += count
        self._decisions.samples_arrived(self._world.task.task, count)

    def switch(self) -> None:
        """It is switched on, or off, or its power fails."""
        if self._power.is_on:
            self._power_off()
        else:
            self._power_on()

    def trigger(self) -> None:
        """Enough samples have come: train, if guards agree."""
        name = self._world.task.task
        stored = stored_count(self._newest_sample, self._world.workload.count(self.number), self.member.maximum_samples)
        refused = self._decisions.begin(name, Readings(stored, 0, minute=int(self._now // 60) % MINUTES_OF_A_DAY))
        if refused:
            self._world.ledger.guard_refusals[refused] += 1
            self._put_off(self.member.guards.recheck_seconds)
            return
        start = StartingPoint(self.peer.rounds, "", self._newest_sample)
        self._decisions.version_ready(name, start)
        seconds = round_seconds(self._world.task, self.member.conditions, stored)
        self._later(seconds, partial(self._end_round, self._job(), self.talk.take_out()))

    def hear(self, neighbour: int, said: Told | CopyRequest) -> None:
        """A message has come from a neighbour."""
        if isinstance(said, CopyRequest):
            self.talk.asked(said, self._now)
        else:
            try:
                self.talk.hear(str(neighbour), said, self._now)
            except ProtocolError as error:
                self._world.ledger.refuse(error.reason.value, error.detail)
        self._speak()

    @property
    def _now(self) -> float:
        return self._world.queue.now

    def _power_on(self) -> None:
        if not self._power.switch_on():
            return
        self._decisions = self._new_decisions()
        self.talk = self._new_talk()
        self.talk.connected()
        self._world.wake.started(self)
        self._speak()
        self._world.wake.idle(self)

    def _power_off(self) -> None:
        self._world.wake.count(self)
        self._world.ledger.rounds_lost += self._decisions.state in IN_A_ROUND
        self._world.ledger.crashes += self._power.switch_off()

    def _new_talk(self) -> Talk:
        """What waited in the memory of the last one is lost."""
        talk = Talk(str(self.number), most_told_bytes(self.peer.model.size))
        talk.stand(self.peer.standing)
        talk.meet(self.peer.neighbours)
        return talk

    def _speak(self) -> None:
        """Say what is due, and again when more is."""
        say = self.talk.to_say(self._now)
        told = self.peer.whole() if say.whole else self.peer.last_told if say.change else None
        for request in say.requests:
            self._world.publish(self.number, request)
        if told is not None:
            self._world.publish(self.number, told)
        if (due := self.talk.next_due) is not None:
            self._later(due - self._now, self._speak)

    def _new_decisions(self) -> RoundDecisions:
        trigger = Trigger(TRIGGER, self._newest_sample - self._trained_through)
        return RoundDecisions(self.member.guards, {self._world.task.task: trigger})

    def _job(self) -> RoundJob:
        return RoundJob(
            device=self.number,
            task=self._world.task,
            weights=self.peer.model,
            newest_sample=self._newest_sample,
            trained_through=self._trained_through,
            maximum_samples=self.member.maximum_samples,
            behind=0,
            residual=b"",
            returned={},
            seed=self._rounds,
            life=1,
            epochs=self._epochs,
            usual_norm=0.0,
            last_weights=None,
            own=b"",
            drift=b"",
            versions_since=0,
            cluster=0,
        )

    def _end_round(self, job: RoundJob, heard: Sequence[tuple[str, Told]]) -> None:
        """Whatever came of it, the device mixes: so one that diverges leaves where it is."""
        world, task = self._world, self._world.task
        for name, change in heard:
            try:
                self.peer.hear(name, change)
            except ProtocolError as error:
                world.ledger.refuse(error.reason.value, error.detail)
        try:
            result = carried_out(job, world.workload, encode=ENCODE)
        except DivergedError as error:
            world.ledger.rounds_diverged = world.ledger.rounds_diverged.again(str(error))
            end_round(self.peer, None, task)
            self._go_on(told=False)
            self._put_off(self._decisions.failed(task.task, None, self._now, str(error)))
            return
        if isinstance(result, Withheld):
            world.ledger.rounds_withheld[result.why] += 1
        self._rounds += 1
        self._epochs = result.epochs
        self._trained_through = job.newest_sample
        told = end_round(self.peer, result, task)
        if told is None:
            world.ledger.rounds_withheld["unchanged"] += 1
        self._go_on(told=told is not None)
        self._decisions.ended(task.task, self._newest_sample - job.newest_sample, "told" if told else "unchanged")
        world.round_ended()
        world.wake.idle(self)

    def _go_on(self, *, told: bool) -> None:
        self.talk.round_ended(self.peer.standing, told=told, now=self._now)
        self._speak()

    def _put_off(self, seconds: float) -> None:
        self._later(seconds, self._retry)

    def _retry(self) -> None:
        self._decisions.retry_deferred_trigger(self._world.task.task)
        self._world.wake.idle(self)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action that is dropped if the device is switched off before."""
        self._world.queue.after(seconds, partial(self._act, action, self._power.plan()))

    def _act(self, action: Callable[[], None], power_cycle: int) -> None:
        if self._power.is_due(power_cycle):
            action()
