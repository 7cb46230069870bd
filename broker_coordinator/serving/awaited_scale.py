"""The scale that a task awaits: when enough devices have said how their samples are distributed. Pure."""

import math
from dataclasses import dataclass
from typing import Any

from broker_coordinator.admission.consumer import ScaleConsumer
from broker_coordinator.aggregation.fleet_scale import is_enough, next_look
from broker_coordinator.serving.served_aggregate import NextAggregate, ServedAggregate
from broker_coordinator.serving.waiting import WaitingPayload
from bundle_runtime.bundle import Bundle, with_description


@dataclass(frozen=True, slots=True)
class NextScale:
    """A scale that is made but not committed: the aggregate of all that waited, and the bundle that has it."""

    aggregate: NextAggregate
    bundle: Bundle


@dataclass(slots=True)
class AwaitedScale(ServedAggregate):
    """What waits for the scale of a task; `began` is when the first of it was seen, on the caller's clock."""

    began: float | None = None
    _looked_at: int = 0
    """So many had come when there was last a look."""
    _next_look: float = -math.inf

    def is_due(self, now: float) -> bool:
        """Whether a look may find more than the last one did: something has come, or time has passed."""
        return bool(self.waiting) and (len(self.waiting) != self._looked_at or now >= self._next_look)

    def deadline(self) -> float | None:
        """When a look will find enough although nothing more has come; None where it is not known to."""
        return self._next_look if self.waiting and math.isfinite(self._next_look) else None

    def next_scale(self, bundle: Bundle, devices: int, now: float) -> NextScale | None:
        """The scale of the task with this bundle, or None while too few of the fleet's `devices` have reported.

        Raises:
            Exception: it can't be made of the `buffer`.
        """
        consumer = self._consumer
        self.began = now if self.began is None else self.began
        self._looked_at = len(self.waiting)
        reports, waited = consumer.devices([each.item for each in self.waiting]), now - self.began
        if not is_enough(reports, devices, waited):
            later = next_look(reports, devices, waited)
            self._next_look = math.inf if later is None else now + later
            return None
        made = self._aggregate()
        return NextScale(made, with_description(bundle, consumer.rescaled(self.description, made.aggregate.state)))

    def buffer(self) -> list[WaitingPayload]:
        """All that waits."""
        return list(self.waiting)

    @property
    def _consumer(self) -> "ScaleConsumer[Any, Any, Any, Any]":
        assert isinstance(self.consumer, ScaleConsumer)  # noqa: S101 - it is made for these alone
        return self.consumer
