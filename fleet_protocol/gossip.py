"""Who exchanges models with whom where devices learn without a coordinator, and how much each counts. Pure.

Everybody computes it from the same roster, of which a device is a place, so nobody has to tell it. docs/gossip.md.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from statistics import NormalDist
from typing import Final

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import TopologyName
from fleet_protocol.task_description import TaskDescription

Graph = tuple[frozenset[int], ...]
"""Of each place the places that it is connected with."""

FEWEST_DEVICES: Final[Mapping[TopologyName, int]] = {"ring": 3, "grid": 4, "random": 5}
"""Two devices are no ring, a grid has two rows and two columns, and four neighbours are four others."""
ONE_BIT: Final = frozenset({"ternary", "sign"})
"""Quantisations of which an entry is a sign."""
NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Topology:
    """The graphs that rounds take in turn: in its round r, a device mixes with its neighbours in graph r modulo their
    number. Each is symmetric.
    """

    graphs: tuple[Graph, ...]

    @property
    def devices(self) -> int:
        """How many places there are."""
        return len(self.graphs[0])

    def neighbours(self, place: int) -> list[int]:
        """Those that a device mixes with in any round, ascending."""
        return sorted(frozenset().union(*(graph[place] for graph in self.graphs)))

    def weights(self, place: int, round_number: int) -> dict[int, float]:
        """How much each neighbour of this round counts; the device itself has what is left of 1.

        Metropolis-Hastings weights: w_ij = 1 / (1 + max(d_i, d_j)), where d are the degrees (Xiao and Boyd 2004,
        section 4.2; D-PSGD, Lian et al. 2017, asks for such a matrix): symmetric, and rows and columns add up to 1.
        """
        graph = self.graphs[round_number % len(self.graphs)]
        degree = len(graph[place])
        return {other: 1 / (1 + max(degree, len(graph[other]))) for other in sorted(graph[place])}


def too_few(name: TopologyName, devices: int) -> str:
    """Why so few devices have no neighbours in a topology, and what to do; empty where they have."""
    fewest = FEWEST_DEVICES[name]
    if devices >= fewest:
        return ""
    remedy = "add devices" if devices < FEWEST_DEVICES["ring"] else "add devices, or take 'ring'"
    counted = "1 device" if devices == 1 else f"{devices} devices"
    return f"topology {name!r} of {counted}: it takes {fewest} or more; {remedy}"


def topology(name: TopologyName, devices: int, seed: int) -> Topology:
    """The topology of so many devices; `seed` draws the random one.

    Raises:
        ConfigurationError: too few devices for it.
    """
    if words := too_few(name, devices):
        raise ConfigurationError(words)
    return Topology(TOPOLOGIES[name](devices, seed))


def _ring(devices: int, _seed: int) -> tuple[Graph, ...]:
    return (_connected(devices, [_closed(range(devices))]),)


def _grid(devices: int, _seed: int) -> tuple[Graph, ...]:
    """Everybody in a row mixes, and then everybody in a column: grouped averaging (Moshpit, Ryabinin et al. 2021,
    section 3.2) with two dimensions. With Metropolis-Hastings weights, a group takes its mean; where the number of
    devices is a square, two rounds give all of them the mean of all. Else the last row is shorter.
    """
    side = math.isqrt(devices - 1) + 1
    rows = [range(first, min(first + side, devices)) for first in range(0, devices, side)]
    columns = [range(first, devices, side) for first in range(side)]
    return tuple(
        _connected(devices, [[(one, other) for one in group for other in group if one < other] for group in groups])
        for groups in (rows, columns)
    )


def _random(devices: int, seed: int) -> tuple[Graph, ...]:
    """Four neighbours each: two random rings that have no edge in common, and so are connected. For many devices that
    is like a graph drawn from all of that degree (Kim and Wormald 2001), which mixes fast.
    """
    for attempt in count():
        first, second = (_closed(_shuffled(devices, f"{seed}/{attempt}/{ring}")) for ring in range(2))
        graph = _connected(devices, [first, second])
        if all(len(neighbours) == 4 for neighbours in graph):
            return (graph,)
    raise AssertionError("two rings of five or more have no edge in common sooner or later")


TOPOLOGIES: Final[Mapping[TopologyName, Callable[[int, int], tuple[Graph, ...]]]] = {
    "ring": _ring,
    "grid": _grid,
    "random": _random,
}


def _connected(devices: int, edges: Sequence[Sequence[tuple[int, int]]]) -> Graph:
    found: list[set[int]] = [set() for _ in range(devices)]
    for one, other in (edge for group in edges for edge in group):
        found[one].add(other)
        found[other].add(one)
    return tuple(map(frozenset, found))


def _closed(places: Sequence[int]) -> list[tuple[int, int]]:
    return [*pairwise(places), (places[-1], places[0])]


def _shuffled(devices: int, seed: str) -> list[int]:
    return sorted(range(devices), key=lambda place: hashlib.sha256(f"{seed}/{place}".encode()).digest())


def consensus_step(task: TaskDescription) -> float:
    """How far a device goes towards its neighbours at once, above 0 and at most 1 (gamma of CHOCO-SGD): the share of a
    difference's squared norm that one message brings, if entries are normally distributed. docs/gossip.md derives it.

    With t the magnitude above which the share k of the entries lies that travels, and phi the normal density:
    2 t phi(t) + k for numbers, and (2 phi(t))^2 / k for signs with one magnitude. Random entries bring k of all.
    """
    plan = task.update
    kept = 1.0 if plan.selection == "dense" else max(plan.keep_fraction, 1 / task.parameter_count)
    if plan.selection == "random_k":
        return kept * _share_brought(1.0, plan.quantisation)
    return _share_brought(kept, plan.quantisation)


def _share_brought(kept: float, quantisation: str) -> float:
    threshold = -NORMAL.inv_cdf(kept / 2)
    density = NORMAL.pdf(threshold)
    return (2 * density) ** 2 / kept if quantisation in ONE_BIT else 2 * threshold * density + kept
