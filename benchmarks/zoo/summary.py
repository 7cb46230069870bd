"""The zoo's last line: what all its cases come to. Pure."""

from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.zoo.case import Outcome


class Summary(msgspec.Struct, frozen=True):
    """Gaps are in points below pooled training; `worst` names the case with the largest.

    `refused` and `diverged` name the cases in which that happened, with how often.
    """

    cases: int
    gaps: dict[str, float]
    median_gaps: dict[str, float]
    worst: str
    worst_gap: float
    collapsed: list[str]
    refused: dict[str, int]
    diverged: dict[str, int]
    cpu_seconds: float


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Of at least one case; medians are by partition, over tasks, fleets and seeds."""
    worst = max(outcomes, key=lambda outcome: outcome.gap)
    partitions = dict.fromkeys(outcome.case.partition for outcome in outcomes)
    return Summary(
        cases=len(outcomes),
        gaps={outcome.case.name: outcome.gap for outcome in outcomes},
        median_gaps={name: round(median(gaps_in(outcomes, name)), 2) for name in partitions},
        worst=worst.case.name,
        worst_gap=worst.gap,
        collapsed=[outcome.case.name for outcome in outcomes if outcome.collapsed],
        refused={outcome.case.name: outcome.refused for outcome in outcomes if outcome.refused},
        diverged={outcome.case.name: outcome.diverged for outcome in outcomes if outcome.diverged},
        cpu_seconds=round(sum(outcome.cpu_seconds for outcome in outcomes), 1),
    )


def gaps_in(outcomes: Sequence[Outcome], partition: str) -> list[float]:
    """Those of one partition."""
    return [outcome.gap for outcome in outcomes if outcome.case.partition == partition]
