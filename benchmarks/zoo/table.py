"""Markdown tables of the zoo's results, as in docs/learning.md: `python -m benchmarks.zoo.table FILE`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from benchmarks.zoo.case import Outcome
from benchmarks.zoo.results import read_results
from benchmarks.zoo.summary import Pair, with_and_without
from fleet_protocol.errors import ConfigurationError

MARKS = (
    ("collapsed", "c", lambda outcome: outcome.collapsed),
    ("updates were refused", "r", lambda outcome: outcome.refused > 0),
    ("rounds diverged", "d", lambda outcome: outcome.diverged > 0),
    ("went back to a good version", "a", lambda outcome: outcome.alarms > 0),
)
"""What a mark stands for, the mark, and whether an outcome has it."""


NOTED_GAIN = 1.0
"""In points: what a rule must change in a case to be counted there. One seed says nothing of less."""


def tables(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The lines: a table for each size of fleet, a row for each task, a column for each partition; and one of rules."""
    whole = [outcome for outcome in outcomes if not outcome.case.without]
    yield from _fleets(whole)
    yield _legend(whole)
    if pairs := with_and_without(outcomes):
        yield ""
        yield from _rules(pairs)


def _fleets(outcomes: Sequence[Outcome]) -> Iterator[str]:
    partitions = list(dict.fromkeys(outcome.case.partition for outcome in outcomes))
    for devices in sorted({outcome.case.devices for outcome in outcomes}):
        of_size = [outcome for outcome in outcomes if outcome.case.devices == devices]
        yield f"| {devices} devices | pooled | {' | '.join(partitions)} |"
        yield "|---" * (2 + len(partitions)) + "|"
        for task in dict.fromkeys(outcome.case.task for outcome in of_size):
            row = [outcome for outcome in of_size if outcome.case.task == task]
            yield f"| {_label(row)} | {_percent(row[0].pooled.score)} | {' | '.join(_cells(row, partitions))} |"
        gaps = ([outcome.gap for outcome in of_size if outcome.case.partition == name] for name in partitions)
        yield f"| median gap | | {' | '.join(f'{median(each):.1f}' if each else '' for each in gaps)} |"
        yield ""


def _rules(pairs: Mapping[str, Sequence[Pair]]) -> Iterator[str]:
    """A row for each rule, a column for each partition: what the rule adds on average, and how often it does."""
    every = [pair for of_rule in pairs.values() for pair in of_rule]
    partitions = list(dict.fromkeys(pair.whole.case.partition for pair in every))
    yield f"| rule | {' | '.join(partitions)} | better with, without | collapsed with, without |"
    yield "|---" * (3 + len(partitions)) + "|"
    for rule, of_rule in pairs.items():
        gains = [pair.gain for pair in of_rule]
        cells = [_gain([pair for pair in of_rule if pair.whole.case.partition == name]) for name in partitions]
        better, worse = sum(gain >= NOTED_GAIN for gain in gains), sum(gain <= -NOTED_GAIN for gain in gains)
        collapsed = [sum(pair.whole.collapsed for pair in of_rule), sum(pair.without.collapsed for pair in of_rule)]
        cells += [f"{better}, {worse} of {len(gains)}", f"{collapsed[0]}, {collapsed[1]}"]
        yield f"| {rule} | {' | '.join(cells)} |"
    yield ""
    yield (
        "What the final score loses without the rule, in points, mean over tasks and seeds, and the task where it is"
        f" most. Cases are counted that differ by {NOTED_GAIN:g} point or more."
    )


def _gain(pairs: Sequence[Pair]) -> str:
    """The mean, and the case that makes most of it."""
    if not pairs:
        return ""
    most = max(pairs, key=lambda pair: abs(pair.gain))
    return f"{mean(pair.gain for pair in pairs):.1f} ({most.whole.case.task} {most.gain:.1f})"


def _label(row: Sequence[Outcome]) -> str:
    """A fleet that could not be as large as was asked for says how large it is."""
    devices = max(outcome.devices for outcome in row)
    size = f", {devices} devices" if devices < row[0].case.devices else ""
    return f"{row[0].case.task}{' (R2)' * (row[0].measure == 'R2')}{size}"


def _cells(row: Sequence[Outcome], partitions: Sequence[str]) -> Iterator[str]:
    for partition in partitions:
        found = [outcome for outcome in row if outcome.case.partition == partition]
        if not found:
            yield ""
            continue
        marks = "".join(mark for _, mark, has in MARKS if any(map(has, found)))
        gap = mean(outcome.gap for outcome in found)
        yield f"{_percent(mean(outcome.final for outcome in found))} ({gap:.1f}) {marks}".rstrip()


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _legend(outcomes: Sequence[Outcome]) -> str:
    seeds = len({outcome.case.seed for outcome in outcomes})
    marks = ", ".join(f"{mark}: {words}" for words, mark, _ in MARKS)
    origins = " and ".join(dict.fromkeys(outcome.origin for outcome in outcomes))
    return (
        f"Final score in per cent (points below pooled training), mean of {seeds} seed(s). {marks}."
        f" {len(outcomes)} cases, {origins}."
    )


def main() -> None:
    """Print the tables of a file."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m benchmarks.zoo.table FILE")
    try:
        print("\n".join(tables(read_results(Path(sys.argv[1])))))
    except (ConfigurationError, OSError) as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
