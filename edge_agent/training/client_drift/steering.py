"""What a round is told against drift, and what it leaves to the device's next one. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from edge_agent.training.client_drift.adaptive_proximal import Adapted, adapted, raised
from edge_agent.training.client_drift.control_variates import control_variate, correction, gradient_of
from edge_agent.training.engine import Rates
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan

FirstStep = Callable[[], FloatVector]
"""The weights f32[P] behind the first step of a round, uncorrected."""


class DriftMemory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device keeps between two rounds: its control variate as float32[T], empty where it has none, and its
    coefficient of the proximal term.
    """

    variate: bytes = b""
    proximal: Adapted | None = None


@dataclass(frozen=True, slots=True)
class FleetMovement:
    """The version that the device's last round began with, f32[P], and how many versions were made since."""

    last_weights: FloatVector
    versions: int


@dataclass(frozen=True, slots=True)
class Steering:
    """Of one round: the rates of its steps, and what earlier rounds have left."""

    rates: Rates
    memory: DriftMemory
    plan: TrainingPlan

    @classmethod
    def of_round(
        cls,
        task: TaskDescription,
        weights: FloatVector,
        kept: bytes,
        movement: FleetMovement | None,
        *,
        steps: int,
        first_step: FirstStep,
    ) -> "Steering":
        """That of a round of so many `steps` from the version `weights` f32[P]; `kept` as `left` gave it, or empty."""
        plan, memory = task.training, _read(kept, task)
        rates = Rates.planned(plan)
        if memory.proximal is not None:
            rates = replace(rates, proximal=memory.proximal.coefficient)
        if plan.correction == "off" or movement is None or movement.versions < 1 or not memory.variate:
            return cls(rates, memory, plan)
        trained = task.trained_count
        moved = (weights - movement.last_weights)[:trained] / np.float32(movement.versions)
        first = gradient_of((first_step() - weights)[:trained], plan, 1)
        own = np.frombuffer(memory.variate, np.float32)
        return cls(replace(rates, correction=correction(moved, own, first, plan, steps)), memory, plan)

    @property
    def corrects(self) -> bool:
        """Whether something is added to each gradient."""
        return self.rates.correction is not None

    def uncorrected(self) -> "Steering":
        """The same without what is added."""
        return replace(self, rates=replace(self.rates, correction=None))

    def left(self, moved: FloatVector, losses: FloatVector) -> bytes | None:
        """What the next round is steered by, behind one that has moved the weights by `moved` f32[T] in steps with
        these `losses`, f32[K]; None where the task remembers nothing.
        """
        if not self.plan.remembers_drift:
            return None
        variate = b""
        if self.plan.correction != "off":
            variate = control_variate(moved, self.rates.correction, self.plan, losses.size).tobytes()
        return msgspec.msgpack.encode(DriftMemory(variate, self._adapted(losses)))

    def left_unsent(self, losses: FloatVector | None) -> bytes | None:
        """Likewise behind a round that sends nothing, with these `losses`, f32[K], or None where it has gone too far,
        as it diverged or made validation samples worse. The control variate stays that of the last round that was sent;
        None where there is nothing else.
        """
        proximal = self.memory.proximal
        if proximal is None:
            return None
        after = raised(proximal, self.plan, proximal.loss) if losses is None else self._adapted(losses)
        return msgspec.msgpack.encode(DriftMemory(self.memory.variate, after))

    def _adapted(self, losses: FloatVector) -> Adapted | None:
        proximal = self.memory.proximal
        return proximal and adapted(proximal, float(losses.mean(dtype=np.float64)), self.plan)


def _read(kept: bytes, task: TaskDescription) -> DriftMemory:
    """What was kept, where it is of this task's length; and where a coefficient begins."""
    memory = msgspec.msgpack.decode(kept, type=DriftMemory) if kept else DriftMemory()
    begins = Adapted(task.training.proximal) if task.training.adaptive_proximal else None
    variate = memory.variate if len(memory.variate) == np.float32().nbytes * task.trained_count else b""
    return DriftMemory(variate, memory.proximal if begins and memory.proximal else begins)
