"""Which search finds a fleet's plan, and what each of them found. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from workbench.split_planning.coordinate_search import search_by_coordinates
from workbench.split_planning.evolution import Evolution, evolve
from workbench.split_planning.shared_helpers import Plan, Sharing, best_of_all

MOST_LOOKED_AT = 5_000
"""Plans: where there are no more, each is looked at."""

SearchName = Literal["exact", "coordinate", "evolutionary"]

FRONT_STEPS: Sequence[float] = (1 / 16, 1 / 4, 1, 4, 16)
"""Weights of a byte that the front is looked for with, in units of the fastest plan's seconds over its bytes."""


class Found(msgspec.Struct, frozen=True):
    """What one search found: means over devices of a step's seconds and bytes, both ways."""

    search: SearchName
    seconds: float
    step_bytes: float
    score: float


class FrontPoint(msgspec.Struct, frozen=True):
    """A plan than which no other that was found is better in both: with it, a megabyte is worth `seconds_per_mb`."""

    seconds_per_mb: float
    seconds: float
    step_bytes: float


@dataclass(frozen=True, slots=True)
class Searched:
    """The best plan, and what each search found; the best first."""

    plan: Plan
    found: list[Found]


def search_plan(sharing: Sharing, how: Evolution) -> Searched:
    """The best of all plans where there are few, else the better one of both searches."""
    if sharing.number_of_plans() <= MOST_LOOKED_AT:
        plans: dict[SearchName, Plan] = {"exact": best_of_all(sharing)}
    else:
        by_coordinates = search_by_coordinates(sharing)
        plans = {"coordinate": by_coordinates, "evolutionary": evolve(sharing, how)}
    found = sorted((_found(sharing, name, plan) for name, plan in plans.items()), key=lambda each: each.score)
    return Searched(plans[found[0].search], found)


def front(sharing: Sharing) -> list[FrontPoint]:
    """Plans from the fastest to the one with the fewest bytes, none of which is worse than another in both.

    They are those that the coordinate search finds with weights of bytes from none on, so plans in hollows of the front
    are left out, as with every weighted sum.
    """
    fastest = sharing.cost(sharing.shares(search_by_coordinates(sharing.weighing(0.0))))
    unit = fastest.seconds / fastest.step_bytes if fastest.step_bytes else 0.0
    weights = sorted({0.0, sharing.bytes_weight, *(each * unit for each in FRONT_STEPS)})
    points = [_point(sharing.weighing(weight)) for weight in weights]
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda each: (each.seconds, each.step_bytes)):
        if not kept or point.step_bytes < kept[-1].step_bytes:
            kept.append(point)
    return kept


def _point(sharing: Sharing) -> FrontPoint:
    cost = sharing.cost(sharing.shares(search_by_coordinates(sharing)))
    return FrontPoint(1e6 * sharing.bytes_weight, cost.seconds, cost.step_bytes)


def _found(sharing: Sharing, name: SearchName, plan: Plan) -> Found:
    shares = sharing.shares(plan)
    cost = sharing.cost(shares)
    return Found(name, cost.seconds, cost.step_bytes, sharing.score(shares))
