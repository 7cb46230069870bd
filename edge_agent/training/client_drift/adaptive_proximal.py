"""FedProx's coefficient, adapted on each device by what its losses do: Li et al. 2020, section 5.3.2. Pure."""

from typing import Final

import msgspec

from fleet_protocol.training_plan import TrainingPlan

STEP: Final = 0.1
FALLS_UNTIL_LOWER: Final = 5


class Adapted(msgspec.Struct, frozen=True):
    """The coefficient of a device's next round. `loss` is the mean over the steps of its last one, which was the
    `falls`-th in a row with a lower one than the round before it; None before the first.
    """

    coefficient: float
    loss: float | None = None
    falls: int = 0


def adapted(before: Adapted, loss: float, plan: TrainingPlan) -> Adapted:
    """Behind a round whose mean loss was `loss`: more where it has risen, less where it has fallen often enough.

    The coefficient times the learning rate is at most 1: with more, a step would go past the version.
    """
    if before.loss is None:
        return Adapted(before.coefficient, loss)
    if loss > before.loss:
        return raised(before, plan, loss)
    falls = before.falls + 1 if loss < before.loss else 0
    if falls < FALLS_UNTIL_LOWER:
        return Adapted(before.coefficient, loss, falls)
    return Adapted(max(before.coefficient - STEP, 0.0), loss)


def raised(before: Adapted, plan: TrainingPlan, loss: float | None) -> Adapted:
    """More, behind a round that has gone too far; `loss` is what the next one's is compared with."""
    return Adapted(max(before.coefficient, min(before.coefficient + STEP, 1 / plan.learning_rate)), loss)
