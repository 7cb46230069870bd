"""When a simulated device is on, and which of its plans still count."""

import math

import numpy as np

from workbench.simulation.conditions import Conditions
from workbench.simulation.event_queue import Alarm, EventQueue


class Power:
    """Device `number`; `will_crash` says whether a crash will switch it off."""

    __slots__ = ("_conditions", "_generator", "_number", "_queue", "cycle", "is_on", "planned", "will_crash")

    def __init__(
        self,
        number: int,
        conditions: Conditions,
        queue: EventQueue,
        generator: np.random.Generator,
        *,
        is_on: bool = False,
        will_crash: bool = False,
    ) -> None:
        self.is_on = is_on
        self.will_crash = will_crash
        self.cycle = 0
        """What was planned in an earlier one is dropped."""
        self.planned = 0
        """Actions that are under way in this one."""
        self._number = number
        self._conditions = conditions
        self._queue = queue
        self._generator = generator

    def switch_on(self) -> bool:
        """Whether its hours have come: it is on then, until the alarm rings; else the alarm rings when they come."""
        conditions, queue = self._conditions, self._queue
        if (wait := conditions.seconds_until_open(queue.now)) > 0:
            queue.set_alarm(Alarm.POWER, self._number, wait)
            return False
        self.is_on = True
        seconds, crashes = conditions.seconds_on(queue.now, self._generator)
        if seconds < math.inf:
            self.will_crash = crashes
            queue.set_alarm(Alarm.POWER, self._number, seconds)
        return True

    def switch_off(self) -> bool:
        """Its hours are over, or its power fails; returns whether it crashed. The alarm rings when it may start."""
        self.end_cycle()
        self.is_on = False
        wait = self._conditions.restart_seconds if self.will_crash else 0.0
        self._queue.set_alarm(Alarm.POWER, self._number, wait)
        return self.will_crash

    def end_cycle(self) -> None:
        """Drop what is planned."""
        self.cycle += 1
        self.planned = 0

    def plan(self) -> int:
        """An action is under way; returns the cycle that `is_due` asks for."""
        self.planned += 1
        return self.cycle

    def is_due(self, cycle: int) -> bool:
        """Whether an action that was planned in that cycle is done now; it is not under way any more."""
        if cycle != self.cycle:
            return False
        self.planned -= 1
        return True
