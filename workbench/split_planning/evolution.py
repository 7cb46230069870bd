"""A good plan for a fleet that has too many to look at: an evolutionary search. Pure.

Clustered split training of a generator (HuSCF-GAN) chooses its cuts by such a search too. A plan is a genome with a
choice for each device. The first generation has the best of `first_plans`, and so the result is never worse.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.split_planning.first_plans import first_plans
from workbench.split_planning.shared_helpers import Choice, Plan, Sharing

TOURNAMENT = 3
"""Plans of which the best one becomes a parent."""

ELITE = 2
"""Best plans of a generation that are in the next one as they are."""


@dataclass(frozen=True, slots=True)
class Evolution:
    """How long, and how: `crossover` is the chance that a child has two parents, `mutation` that of each of its choices
    to be drawn anew; the mean of mutations is at least one for each child.
    """

    population: int = 64
    generations: int = 150
    crossover: float = 0.9
    mutation: float = 0.02
    seed: int = 0


def evolve(sharing: Sharing, how: Evolution) -> Plan:
    """The best plan that was found; the same seed finds the same."""
    draw = random.Random(how.seed)  # noqa: S311 - no secret is drawn
    choices_of = [sharing.choices(number) for number in range(len(sharing.groups))]
    choices = [choices_of[group] for group in sharing.group_of]
    population = _first_generation(sharing, choices, how.population, draw)
    for _ in range(how.generations):
        ranked = sorted(population, key=population.__getitem__)
        children = {plan: population[plan] for plan in ranked[:ELITE]}
        for _child in range(how.population - len(children)):
            child = _child_of(ranked, choices, how, draw)
            if child not in children:
                children[child] = _score(sharing, child)
        population = children
    return min(population, key=population.__getitem__)


def _first_generation(
    sharing: Sharing, choices: Sequence[Sequence[Choice]], size: int, draw: random.Random
) -> dict[Plan, float]:
    """Plans with their scores: those that are at hand, the better half of them where there are many, and others drawn
    at random.
    """
    at_hand = sorted(first_plans(sharing), key=lambda plan: _score(sharing, plan))[: max(1, size // 2)]
    plans = [*at_hand, *(tuple(draw.choice(each) for each in choices) for _ in range(size - len(at_hand)))]
    return {plan: _score(sharing, plan) for plan in plans}


def _score(sharing: Sharing, plan: Plan) -> float:
    return sharing.score(sharing.shares(plan))


def _child_of(ranked: Sequence[Plan], choices: Sequence[Sequence[Choice]], how: Evolution, draw: random.Random) -> Plan:
    """Uniform crossover, then mutation."""
    child = list(_parent(ranked, draw))
    if draw.random() < how.crossover:
        other = _parent(ranked, draw)
        child = [theirs if draw.random() < 1 / 2 else mine for mine, theirs in zip(child, other, strict=True)]
    rate = max(how.mutation, 1 / len(child))
    for device, each in enumerate(choices):
        if draw.random() < rate:
            child[device] = draw.choice(each)
    return tuple(child)


def _parent(ranked: Sequence[Plan], draw: random.Random) -> Plan:
    return ranked[min(draw.randrange(len(ranked)) for _ in range(TOURNAMENT))]
