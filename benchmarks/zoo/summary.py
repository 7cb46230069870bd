"""The zoo's last line: what all its cases come to. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import msgspec

from benchmarks.zoo.case import Outcome


class Summary(msgspec.Struct, frozen=True):
    """Gaps are in points below pooled training; `worst` names the case with the largest.

    `refused` and `diverged` name the cases in which that happened, with how often; `contributions` say what each rule
    adds to the score, by partition, where the same cases were run without it.
    """

    cases: int
    gaps: dict[str, float]
    median_gaps: dict[str, float]
    worst: str
    worst_gap: float
    collapsed: list[str]
    refused: dict[str, int]
    diverged: dict[str, int]
    contributions: dict[str, dict[str, float]]
    cpu_seconds: float


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Of at least one case with all rules; medians are by partition, over tasks, fleets and seeds."""
    whole = [outcome for outcome in outcomes if not outcome.case.without]
    worst = max(whole, key=lambda outcome: outcome.gap)
    partitions = dict.fromkeys(outcome.case.partition for outcome in whole)
    return Summary(
        cases=len(outcomes),
        gaps={outcome.case.name: outcome.gap for outcome in outcomes},
        median_gaps={name: round(median(gaps_in(whole, name)), 2) for name in partitions},
        worst=worst.case.name,
        worst_gap=worst.gap,
        collapsed=[outcome.case.name for outcome in outcomes if outcome.collapsed],
        refused={outcome.case.name: outcome.refused for outcome in outcomes if outcome.refused},
        diverged={outcome.case.name: outcome.diverged for outcome in outcomes if outcome.diverged},
        contributions={rule: _means(pairs) for rule, pairs in with_and_without(outcomes).items()},
        cpu_seconds=round(sum(outcome.cpu_seconds for outcome in outcomes), 1),
    )


def gaps_in(outcomes: Sequence[Outcome], partition: str) -> list[float]:
    """Those of one partition."""
    return [outcome.gap for outcome in outcomes if outcome.case.partition == partition]


@dataclass(frozen=True, slots=True)
class Pair:
    """A case with all rules, and without one."""

    whole: Outcome
    without: Outcome

    @property
    def gain(self) -> float:
        """What the rule adds to the score, in points."""
        return self.without.gap - self.whole.gap


def with_and_without(outcomes: Sequence[Outcome]) -> dict[str, list[Pair]]:
    """By rule; those of which one half is missing are left out."""
    whole = {outcome.case: outcome for outcome in outcomes if not outcome.case.without}
    pairs: dict[str, list[Pair]] = {}
    for outcome in outcomes:
        if outcome.case.without and (other := whole.get(outcome.case.whole)):
            pairs.setdefault(outcome.case.without, []).append(Pair(other, outcome))
    return pairs


def _means(pairs: Sequence[Pair]) -> dict[str, float]:
    partitions = dict.fromkeys(pair.whole.case.partition for pair in pairs)
    return {
        name: round(mean(pair.gain for pair in pairs if pair.whole.case.partition == name), 2) for name in partitions
    }
