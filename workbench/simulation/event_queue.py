"""The discrete-event clock: what happens next, in virtual seconds.

Most of a large fleet sleeps: what a sleeping device waits for is an alarm, which is two numbers in arrays and no
object. What happens later than in the next seconds waits unsorted in a bucket, so that the heap stays small.
"""

import heapq
from array import array
from collections.abc import Callable
from enum import IntEnum
from typing import Final

Action = Callable[[], None]
Event = tuple[float, int, Action | int]
"""When, the how manyth that was planned, and an action, or an alarm by its number."""

BUCKET_SECONDS: Final = 16.0
EVENTS_BETWEEN_TICKS: Final = 64
NOT_SET: Final = -1


class Alarm(IntEnum):
    """What a device waits for; it has one of a kind at most."""

    SAMPLES = 0
    POWER = 1


ALARMS: Final = tuple(Alarm)


class EventQueue:
    """Runs actions, and rings the alarms of so many `devices`, in the order of their times; of equal times, the one
    that was planned first.
    """

    def __init__(self, devices: int = 0) -> None:
        self.now = 0.0
        self.ring: Callable[[Alarm, int], None] = _no_device
        """Called with an alarm and the number of its device."""
        self._devices = devices
        self._heap: list[Event] = []
        self._order = 0
        """How many were planned so far."""
        self._stopped = False
        self._opened = 0
        """The last bucket whose events are in the heap."""
        self._buckets: dict[int, tuple[list[Event], array[int]]] = {}
        """Later actions, and numbers of alarms."""
        self._next_buckets: list[int] = []
        self._times = array("d", bytes(8 * len(Alarm) * devices))
        self._orders = array("q", [NOT_SET]) * (len(Alarm) * devices)

    def after(self, seconds: float, action: Action) -> None:
        """Plan `action` for `seconds` from now; at once where that is negative."""
        time = self.now + max(0.0, seconds)
        self._order += 1
        event = (time, self._order, action)
        bucket = int(time // BUCKET_SECONDS)
        if bucket <= self._opened:
            heapq.heappush(self._heap, event)
        else:
            self._bucket(bucket)[0].append(event)

    def set_alarm(self, alarm: Alarm, device: int, seconds: float) -> None:
        """Ring `seconds` from now, at once where that is negative; instead of when the alarm was set to before."""
        self._order = order = self._order + 1
        time = self.now + max(0.0, seconds)
        number = alarm * self._devices + device
        self._times[number], self._orders[number] = time, order
        bucket = int(time // BUCKET_SECONDS)
        if bucket <= self._opened:
            heapq.heappush(self._heap, (time, order, number))
        else:
            self._bucket(bucket)[1].append(number)

    def stop_alarm(self, alarm: Alarm, device: int) -> None:
        """It does not ring, if it was set."""
        self._orders[alarm * self._devices + device] = NOT_SET

    def run(self, until: float, tick: Action = lambda: None) -> None:
        """Run everything that is planned up to `until`, which is then the time, unless `stop` came first. `tick` is
        called every few dozen events.
        """
        done = 0
        while not self._stopped and self._has_one(until):
            time, order, planned = heapq.heappop(self._heap)
            if isinstance(planned, int):
                if self._orders[planned] != order:
                    continue
                self._orders[planned] = NOT_SET
                self.now = time
                self.ring(ALARMS[planned // self._devices], planned % self._devices)
            else:
                self.now = time
                planned()
            done += 1
            if done % EVENTS_BETWEEN_TICKS == 0:
                tick()
        if not self._stopped:
            self.now = until

    def stop(self) -> None:
        """Let the running action be the last one."""
        self._stopped = True

    def _has_one(self, until: float) -> bool:
        """Whether the next event is not after `until`; it is then at the top of the heap."""
        while not self._heap:
            if not self._next_buckets:
                return False
            self._open(heapq.heappop(self._next_buckets))
        return self._heap[0][0] <= until

    def _open(self, bucket: int) -> None:
        actions, alarms = self._buckets.pop(bucket)
        self._opened = bucket
        for number in alarms:
            time, order = self._times[number], self._orders[number]
            if order != NOT_SET and int(time // BUCKET_SECONDS) == bucket:
                actions.append((time, order, number))
        heapq.heapify(actions)
        self._heap = actions

    def _bucket(self, bucket: int) -> tuple[list[Event], "array[int]"]:
        if (found := self._buckets.get(bucket)) is None:
            found = self._buckets[bucket] = [], array("q")
            heapq.heappush(self._next_buckets, bucket)
        return found


def _no_device(alarm: Alarm, device: int) -> None:
    raise LookupError(f"the alarm {alarm.name} of device {device} rings in a queue without devices")
