"""Markdown tables of the zoo's results, as in docs/learning.md: `python -m benchmarks.zoo.table FILE`."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median

from benchmarks.zoo.case import Outcome
from benchmarks.zoo.results import read_results
from fleet_protocol.errors import ConfigurationError

MARKS = (
    ("collapsed", "c", lambda outcome: outcome.collapsed),
    ("updates were refused", "r", lambda outcome: outcome.refused > 0),
    ("rounds diverged", "d", lambda outcome: outcome.diverged > 0),
    ("went back to a good version", "a", lambda outcome: outcome.alarms > 0),
)
"""What a mark stands for, the mark, and whether an outcome has it."""


def tables(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The lines: a table for each size of fleet, a row for each task, a column for each partition."""
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
    yield _legend(outcomes)


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
