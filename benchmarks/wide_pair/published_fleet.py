"""The published fleet under the published latency model, as the shipped searches take a fleet."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.published_latency import PROFILES, SERVER, Half, Holders, Reading, halves, holders
from fleet_protocol.split_plan import Cut
from fleet_protocol.split_step_costs import StepCost
from workbench.split_planning.cut_options import CutOption, Machine
from workbench.split_planning.shared_helpers import Group, PlanCost, Share, Sharing

KEPT: Final = tuple(itertools.product((False, True), repeat=4))
"""Of each of the 16 cuts, whether a device keeps block 2 and block 4 of the generator, and of the discriminator."""
BLOCKS: Final = ((0, 1), (2, 3))
"""Where those of each half stand."""

THE_SERVER: Final = Machine(1e9 * SERVER.gflops, SERVER.link, SERVER.link, 0.0)


class PublishedFleet(Sharing):
    """A plan's cost is one iteration of all devices in lockstep; bytes are not counted."""

    def __init__(self, reading: Reading, counts: Sequence[int]) -> None:
        """So many devices of each of `PROFILES`."""
        self._halves = halves(reading)
        super().__init__([Group(self._options(number), count) for number, count in enumerate(counts)], [THE_SERVER])

    def _computed(self, shares: Mapping[Share, int]) -> PlanCost:
        seconds = 0.0
        for half, (heads, tails) in zip(self._halves, BLOCKS, strict=True):
            seconds += half.seconds(_holders(shares, heads), _holders(shares, tails))
        return PlanCost(seconds, 0.0, dict.fromkeys(shares, seconds), [])

    def _options(self, profile: int) -> list[CutOption]:
        """Those of a device of a profile, with what they would take if it were alone."""
        options = []
        for number, kept in enumerate(KEPT):
            seconds = self._computed({(profile, (number, 0)): 1})
            cut = Cut("".join("01"[each] for each in kept), [(1, 2)])
            options.append(CutOption(cut, 0, 0, (StepCost(seconds.seconds, 0.0, 0, 0, 0.0, 0.0, 0.0, 1),)))
        return options


def exact_seconds(reading: Reading, counts: Sequence[int]) -> float:
    """Of the best cuts of all there are."""
    return sum(_best(half, counts) for half in halves(reading))


def _best(half: Half, counts: Sequence[int]) -> float:
    heads, tails = half.best(counts)
    return half.seconds(holders(counts, heads), holders(counts, tails))


def _holders(shares: Mapping[Share, int], block: int) -> list[Holders]:
    return [Holders(PROFILES[group], count, KEPT[number][block]) for (group, (number, _)), count in shares.items()]
