"""Why simulated agents wake: samples arrive, or the experiment keeps a number of them training."""

from array import array
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from workbench.simulation.conditions import HOUR_SECONDS
from workbench.simulation.device.agent import SimulatedAgent
from workbench.simulation.event_queue import Alarm, EventQueue


class TakesSamples(Protocol):
    """What samples wake: a `SimulatedAgent`, whose methods these are, or a device without a coordinator."""

    number: int

    @property
    def available(self) -> bool: ...

    @property
    def missing_samples(self) -> int: ...

    @property
    def samples_per_hour(self) -> float: ...

    def take_samples(self, count: int) -> None: ...

    def trigger(self) -> None: ...


class WakeOnSamples:
    """As shipped: each of so many `devices` trains when enough new samples have arrived.

    Samples come at random times, at the device's rate. Only the moment at which a trigger fires is planned; how many
    have come at any other is drawn when it matters.
    """

    def __init__(self, generator: np.random.Generator, queue: EventQueue, devices: int) -> None:
        self._generator = generator
        self._queue = queue
        self._counted_at = array("d", bytes(8 * devices))
        """When a device's samples were counted last."""
        self._awaited = array("q", bytes(8 * devices))
        """How many it waits for, 0 for none."""

    def started(self, agent: TakesSamples) -> None:
        """See `WakePolicy`. While it was off, none came."""
        self._counted_at[agent.number] = self._queue.now

    def idle(self, agent: TakesSamples) -> None:
        """See `WakePolicy`. Samples that no round has seen fire at once, others as they come."""
        if not agent.available:
            return
        self.count(agent)
        missing = agent.missing_samples
        if not missing:
            agent.trigger()
            return
        hours = self._generator.gamma(missing) / agent.samples_per_hour
        self._awaited[agent.number] = missing
        self._queue.set_alarm(Alarm.SAMPLES, agent.number, hours * HOUR_SECONDS)

    def count(self, agent: TakesSamples) -> None:
        """See `WakePolicy`. The last of the samples that a device waits for has not arrived."""
        now = self._queue.now
        hours = (now - self._counted_at[agent.number]) / HOUR_SECONDS
        arrived = int(self._generator.poisson(hours * agent.samples_per_hour))
        if waited_for := self._stop_waiting(agent.number):
            arrived = min(arrived, waited_for - 1)
        self._counted_at[agent.number] = now
        agent.take_samples(arrived)

    def settled(self, agent: TakesSamples) -> None:
        """See `WakePolicy`: a receipt wakes no device."""

    def arrive(self, agent: TakesSamples) -> None:
        """See `WakePolicy`."""
        self._counted_at[agent.number] = self._queue.now
        agent.take_samples(self._stop_waiting(agent.number))
        agent.trigger()

    def _stop_waiting(self, device: int) -> int:
        """Returns for how many it did."""
        count, self._awaited[device] = self._awaited[device], 0
        if count:
            self._queue.stop_alarm(Alarm.SAMPLES, device)
        return count


class WakeConcurrently:
    """As in the evaluation of FedBuff: `count` devices train at any time, drawn evenly from those that do not.

    Each has all its samples from the start; one whose guards want more never trains. A device that crashes in its round
    keeps its place until it is back.
    """

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        self._count = count
        self._generator = generator
        self._agents: Sequence[SimulatedAgent] = ()
        self._training: set[int] = set()

    def begin(self, agents: Sequence[SimulatedAgent]) -> None:
        """Start: all agents are powered on."""
        self._agents = agents
        for agent in agents:
            agent.take_all_samples()
        self._fill()

    def started(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`: samples wake no device."""

    def idle(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`."""
        self._training.discard(agent.number)
        self._fill()

    def count(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`: samples wake no device."""

    def settled(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`: a receipt wakes no device."""

    def arrive(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`: none waits for samples."""

    def version_made(self) -> None:
        """The coordinator has a new version: whoever waits for it alone may train."""
        self._fill()

    def _fill(self) -> None:
        while self._places_left():
            ready = [agent for agent in self._agents if self._is_ready(agent)]
            if not ready:
                return
            chosen = ready[self._generator.integers(len(ready))]
            self._begin(chosen)

    def _begin(self, agent: SimulatedAgent) -> None:
        self._training.add(agent.number)
        agent.trigger()

    def _places_left(self) -> int:
        return self._count - len(self._training)

    def _is_ready(self, agent: SimulatedAgent) -> bool:
        return agent.may_be_drawn and agent.number not in self._training


class WakeInRounds(WakeConcurrently):
    """As in synchronous federated averaging (McMahan et al. 2017): `count` devices start together, drawn evenly, and
    the next ones with the next version, even if some are still training.
    """

    _begun = 0
    """In this round."""

    def idle(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`. An agent that ends its round without an update is out of the round."""
        if not agent.updates_waiting:
            self.settled(agent)

    def settled(self, agent: SimulatedAgent) -> None:
        """See `WakePolicy`. Where nothing of a round was accepted, another one is tried."""
        self._training.discard(agent.number)
        if not self._training and not self._places_left():
            self._begun = 0
        self._fill()

    def version_made(self) -> None:
        """See `WakeConcurrently`."""
        self._training.clear()
        self._begun = 0
        self._fill()

    def _begin(self, agent: SimulatedAgent) -> None:
        self._begun += 1
        super()._begin(agent)

    def _places_left(self) -> int:
        return self._count - self._begun

    def _is_ready(self, agent: SimulatedAgent) -> bool:
        return super()._is_ready(agent) and not agent.updates_waiting
