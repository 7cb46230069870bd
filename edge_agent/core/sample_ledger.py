"""What rounds have told of each sample, by its id, and which samples can bear another round. Pure.

Samples are numbered as they come. A round that trains on all up to an id is charged to all up to it, whether or not
they were still stored; so what a sample has cost only falls with its id, and the spent ones are those up to some id.
What is counted is steps, of each kind of noise: they add up over rounds, versions and bundles of a task.

Which order of the Rényi divergence decides is fixed before a sample's first round, by the mechanism of that round: then
the sum may stop rounds however these were chosen (Feldman & Zrnic 2021; docs/decisions/budgets-of-samples.md).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.privacy.renyi import (
    Divergences,
    Mechanism,
    StepsTaken,
    best_order,
    divergences_of,
    epsilon_of,
    exceeds_at,
    together,
)
from fleet_protocol.privacy.sample_privacy import SamplePrivacy

EVERY_SAMPLE: Final = 2**63 - 1
"""No id is larger."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Rounds on samples up to the id `newest` took these steps."""

    newest: int
    taken: StepsTaken


@dataclass(frozen=True, slots=True)
class Limit:
    """At most this much may be told of a sample."""

    epsilon: float
    delta: float


def limits_of(task: SamplePrivacy, owner: PrivacySettings) -> list[Limit]:
    """The task's own, and the owner's where there is one: both hold."""
    limits = [Limit(task.epsilon, task.delta)]
    return [*limits, Limit(owner.epsilon, owner.delta)] if owner.epsilon else limits


def cost_of_sample(charges: Iterable[Charge], sample: int) -> Divergences:
    """What rounds have told of the sample with this id."""
    steps: Counter[Mechanism] = Counter()
    for charge in charges:
        if charge.newest >= sample:
            steps[charge.taken.mechanism] += charge.taken.steps
    return divergences_of(StepsTaken(mechanism, number) for mechanism, number in steps.items())


def spent_through(charges: Sequence[Charge], mechanism: Mechanism, steps: int, limits: Iterable[Limit]) -> int:
    """The id up to which samples can't bear another round of so many steps; 0 where all can, `EVERY_SAMPLE` where not
    even one that has been in none can. `charges` come in the order in which they began.
    """
    limits = list(limits)
    cost, first = divergences_of([StepsTaken(mechanism, steps)]), len(charges)

    def is_too_much(begun: Mechanism) -> bool:
        orders = (best_order(begun, limit.epsilon, limit.delta) for limit in limits)
        return any(
            exceeds_at(order, cost, each.epsilon, each.delta) for order, each in zip(orders, limits, strict=True)
        )

    if is_too_much(mechanism):
        return EVERY_SAMPLE

    def newest_of(number: int) -> int:
        return charges[number].newest

    for newest, same in groupby(sorted(range(len(charges)), key=newest_of, reverse=True), key=newest_of):
        for number in same:
            charge = charges[number]
            cost, first = together(cost, divergences_of([charge.taken])), min(first, number)
        if is_too_much(charges[first].taken.mechanism):
            return newest
    return 0


def spent_words(charges: Sequence[Charge], newest: int, limits: Sequence[Limit]) -> str:
    """Why no sample up to `newest` is trained on, and when one is."""
    said = " and ".join(
        f"epsilon {epsilon_of(cost_of_sample(charges, newest), limit.delta):.3g} of {limit.epsilon:g} at delta"
        f" {limit.delta:g}"
        for limit in limits
    )
    return f"rounds have told {said} of every sample here, and another would pass that; trains again when new ones come"
