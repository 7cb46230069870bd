"""How long steps are at a helper that serves several devices, in the order in which they ask. Pure.

Each device has `in_flight` steps that go round: through its own work, then through the helper's link in, its processor
and its link out, where they meet those of others. That is a closed network of queues, whose mean times follow from
mean value analysis with Schweitzer's estimate of what an arriving step finds (Schweitzer 1979; Bard 1979):

    at[k, s] = demand[k, s] + visits[k] * sum over j of found[j, s] * demand[j, s] / visits[j]
    found[j, s] = queued[j, s], and of its own kind queued[k, s] * (1 - 1 / steps[k])
    queued[k, s] = steps[k] * at[k, s] / (elsewhere[k] + sum over s of at[k, s])

Against the event-driven `workbench.split_planning.timeline` it is rather above than below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CLOSE_ENOUGH: Final = 1e-4
"""Largest relative change of a time at the helper with which the iteration ends."""
MOST_ITERATIONS: Final = 200


@dataclass(frozen=True, slots=True)
class Customers:
    """Steps of devices of one kind with one cut: `steps` go round, each `elsewhere` seconds long away from the helper,
    and visit it so often. `demands` are the seconds of a step at each of its stations.
    """

    steps: int
    visits: int
    elsewhere: float
    demands: tuple[float, ...]


def seconds_at_helper(customers: Sequence[Customers]) -> list[float]:
    """Of a step of each kind, waiting for others included."""
    at = [list(each.demands) for each in customers]
    for _ in range(MOST_ITERATIONS):
        queued = [_queued(each, seconds) for each, seconds in zip(customers, at, strict=True)]
        waiting = _waiting(customers, queued)
        new = [
            [
                demand + each.visits * (total - mine / each.steps * _service(each, station))
                for station, (demand, total, mine) in enumerate(zip(each.demands, waiting, of, strict=True))
            ]
            for each, of in zip(customers, queued, strict=True)
        ]
        change = max(
            (abs(sum(after) / sum(before) - 1) for before, after in zip(at, new, strict=True) if sum(before)), default=0
        )
        at = new
        if change < CLOSE_ENOUGH:
            break
    return [sum(seconds) for seconds in at]


def _queued(each: Customers, seconds: Sequence[float]) -> list[float]:
    """How many of its steps are at each station, on average."""
    around = each.elsewhere + sum(seconds)
    return [each.steps * one / around if around else 0.0 for one in seconds]


def _waiting(customers: Sequence[Customers], queued: Sequence[Sequence[float]]) -> list[float]:
    """Seconds until all that is at a station has been served."""
    stations = len(customers[0].demands) if customers else 0
    return [
        sum(of[station] * _service(each, station) for each, of in zip(customers, queued, strict=True))
        for station in range(stations)
    ]


def _service(each: Customers, station: int) -> float:
    """Seconds of one visit."""
    return each.demands[station] / each.visits
