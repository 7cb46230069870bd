"""A simulated fleet: devices that do something are agents, the others sleep as rows of arrays."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.agent import SimulatedAgent, WakePolicy
from workbench.simulation.event_queue import Alarm
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.sleepers import Sleepers
from workbench.simulation.world import SimulatedWorld


class SimulatedFleet(Sequence[SimulatedAgent]):
    """Devices by their number. One that sleeps is built as an agent when something happens to it, and put back as soon
    as nothing is under way that a row has no place for. Without `rows`, all stay agents.
    """

    def __init__(
        self,
        members: Sequence[FleetMember],
        end: Callable[[int], DeviceEnd],
        world: SimulatedWorld,
        wake_policy: WakePolicy,
        *,
        rows: bool,
    ) -> None:
        self._members = members
        self._end = end
        self._world = world
        self._wake_policy = wake_policy
        self._sleepers = Sleepers(len(members))
        self._awake: dict[int, SimulatedAgent] = {}
        self._rows = rows
        world.queue.ring = self._ring
        world.deliver = self._deliver
        if not rows:
            self._awake = {number: self._build(number) for number in range(len(members))}

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, number: int) -> SimulatedAgent: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[SimulatedAgent]: ...
    def __getitem__(self, number: int | slice) -> SimulatedAgent | Sequence[SimulatedAgent]:
        """The devices as they are now; of one that sleeps, what it would be awake."""
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        number = range(len(self))[number]
        return self._awake.get(number) or self._build(number)

    @property
    def awake(self) -> Sequence[SimulatedAgent]:
        """Those that are more than a row."""
        return list(self._awake.values())

    def with_other_models(self) -> Iterator[SimulatedAgent]:
        """Those that answer with another model than the shared one, by their number, whether awake or asleep."""
        for number in range(len(self)):
            if number in self._awake or self._sleepers.in_cluster(number):
                agent = self[number]
                if agent.keeps_something or agent.cluster:
                    yield agent

    @property
    def short_of_samples(self) -> int:
        """How many devices can never store what their guards want."""
        count = self._world.workload.count
        return sum(not member.holds_enough(count(number)) for number, member in enumerate(self._members))

    def power_on(self, number: int) -> None:
        """Start a device for the first time."""
        self._ring(Alarm.POWER, number)

    def _ring(self, alarm: Alarm, number: int) -> None:
        agent = self._wake(number)
        if alarm is Alarm.SAMPLES:
            self._wake_policy.arrive(agent)
        else:
            agent.switch()
        agent.rest()

    def _deliver(self, number: int, receipt: bytes) -> None:
        if (agent := self._awake.get(number)) is not None:  # else it has all receipts that it waits for
            agent.receive(receipt)

    def _wake(self, number: int) -> SimulatedAgent:
        agent = self._awake.get(number)
        if agent is None:
            agent = self._awake[number] = self._build(number)
        return agent

    def _build(self, number: int) -> SimulatedAgent:
        return SimulatedAgent(
            number,
            self._members[number],
            self._end(number),
            self._world,
            self._wake_policy,
            sleepers=self._sleepers,
            fell_asleep=self._put_back if self._rows else None,
        )

    def _put_back(self, agent: SimulatedAgent) -> None:
        del self._awake[agent.number]
