"""A fleet's steps in virtual time, event by event, each device by itself or all in lockstep. Pure.

It is what the planner's mean times (`helper_queue`) are held against, and it shows what a barrier costs.
"""

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fleet_protocol.split_step_costs import Exchange, StepWalk
from workbench.split_planning.cut_options import Machine
from workbench.split_planning.round_ends import NOTHING, RoundEnd


@dataclass(frozen=True, slots=True)
class Walker:
    """A device on its way through steps of `walk`, one at a time, with the helper of this number; behind each
    `round_steps` of them comes the end of a round.
    """

    machine: Machine
    walk: StepWalk
    helper: int = 0
    round_end: RoundEnd = NOTHING
    round_steps: int = 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """How long, in seconds; `spread` is the sigma of the lognormal of mean 1 that each computing time is multiplied
    with. In `lockstep` a helper begins when all devices have asked, and answers when it has computed for all.
    """

    seconds: float
    lockstep: bool = False
    spread: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class _Station:
    """Serves one after the other, in the order in which they come."""

    free_at: float = 0.0

    def until(self, now: float, seconds: float) -> float:
        """When what comes now has been served."""
        self.free_at = max(now, self.free_at) + seconds
        return self.free_at


@dataclass(slots=True)
class _Barrier:
    """Holds all devices until the last one is there."""

    waiting: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Helper:
    machine: Machine
    link_in: _Station = field(default_factory=_Station)
    processor: _Station = field(default_factory=_Station)
    link_out: _Station = field(default_factory=_Station)


Wait = tuple[_Station | None, float]
"""So many seconds at a station, or by oneself."""


@dataclass(slots=True)
class _Device:
    """One device at its helper. `done` are its steps so far."""

    walker: Walker
    helper: _Helper
    barrier: _Barrier | None
    computing: Callable[[float], float]
    done: int = 0

    def walk(self) -> Iterator[Wait | _Barrier]:
        """What it waits for, one after the other, for ever."""
        machine, end = self.walker.machine, self.walker.round_end
        while True:
            for exchange in self.walker.walk.exchanges:
                yield from self._exchange(exchange)
            yield None, self.computing(self.walker.walk.last_flops / machine.flops)
            self.done += 1
            if self.done % self.walker.round_steps == 0:
                yield None, end.up_bytes / machine.uplink + end.down_bytes / machine.downlink

    def _exchange(self, exchange: Exchange) -> Iterator[Wait | _Barrier]:
        machine, helper = self.walker.machine, self.helper
        outward, back = _links(exchange, machine, helper.machine)
        yield None, self.computing(exchange.device_flops / machine.flops) + outward
        yield helper.link_in, exchange.up_bytes / helper.machine.downlink
        if self.barrier is not None:
            yield self.barrier
        yield helper.processor, self.computing(exchange.helper_flops / helper.machine.flops)
        if self.barrier is not None:
            yield self.barrier
        yield helper.link_out, exchange.down_bytes / helper.machine.uplink
        yield None, back


def steps_done(walkers: Sequence[Walker], helpers: Sequence[Machine], given: Conditions) -> list[int]:
    """How many steps each device has done in the time.

    Raises:
        ValueError: in lockstep, devices ask their helpers unlike often in a step.
    """
    if given.lockstep and len({len(each.walk.exchanges) for each in walkers}) > 1:
        raise ValueError("devices in lockstep must ask equally often in a step: give all of them a cut, or none")
    draw = random.Random(given.seed)  # noqa: S311 - no secret is drawn

    def computing(seconds: float) -> float:
        return seconds * math.exp(draw.gauss(-(given.spread**2) / 2, given.spread)) if given.spread else seconds

    there = [_Helper(each) for each in helpers]
    barrier = _Barrier() if given.lockstep else None
    devices = [_Device(each, there[each.helper], barrier, computing) for each in walkers]
    _run([each.walk() for each in devices], given.seconds)
    return [each.done for each in devices]


def _run(walks: Sequence[Iterator[Wait | _Barrier]], seconds: float) -> None:
    """One event after the other; of those at one time the one of the first device."""
    events = [(0.0, number) for number in range(len(walks))]
    while events:
        now, number = heapq.heappop(events)
        if now > seconds:
            return
        wait = next(walks[number])
        if isinstance(wait, _Barrier):
            wait.waiting.append(number)
            if len(wait.waiting) == len(walks):
                for each in wait.waiting:
                    heapq.heappush(events, (now, each))
                wait.waiting.clear()
            continue
        station, taking = wait
        heapq.heappush(events, (station.until(now, taking) if station else now + taking, number))


def _links(exchange: Exchange, device: Machine, helper: Machine) -> tuple[float, float]:
    """Seconds on the way, each way, beside those on the helper's link: frames pass as they come, so a link that is
    wider than the helper's takes none.
    """
    latency = device.latency + helper.latency
    up = exchange.up_bytes * max(0.0, 1 / device.uplink - 1 / helper.downlink)
    down = exchange.down_bytes * max(0.0, 1 / device.downlink - 1 / helper.uplink)
    return latency + up, latency + down
