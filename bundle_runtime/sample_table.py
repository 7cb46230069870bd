"""Samples as text, one a line: CSV with a header, or JSON as the sample socket of a device takes it."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_line import read_line
from fleet_protocol.sample_rules import input_rule, label_rule

LABEL_COLUMN = "label"
"""The columns whose names begin so are the label's, in their order; all others are the inputs."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """What a file holds, by name, before it is checked; `lines` says where each sample stands in a text."""

    arrays: dict[str, NDArray[Any]]
    lines: Sequence[int] = ()

    def place(self, row: int) -> str:
        """Where a sample stands, in words."""
        return f"line {self.lines[row]}" if self.lines else f"row {row} (the first is 0)"


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    inputs: list[float]
    label: list[float]


class _Sample(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[float | None]
    label: float | list[float] | None = None
    task: str | None = None


def read_csv(path: Path, task: TaskDescription) -> Arrays:
    """A header, then a sample in each line: its inputs in C order, and its label under `LABEL_COLUMN`. An empty cell is
    a missing value.

    Raises:
        ConfigurationError: a line has another number of values, or one that is no number.
        OSError, ValueError: the file can't be read.
    """
    return _joined(_csv_rows(path), path, task)


def read_json_lines(path: Path, task: TaskDescription) -> Arrays:
    """A JSON object in each line: `inputs`, of which null is a missing one, `label` and, if one likes, `task`.

    Raises:
        ConfigurationError: a line is no sample, or one of another task.
        OSError: the file can't be read.
    """
    return _joined(_json_rows(path, task.task), path, task)


def _csv_rows(path: Path) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.reader(file)
        header = next(table, [])
        for cells in filter(None, table):
            if len(cells) != len(header):
                raise _wrong(path, table.line_num, f"{len(cells)} cells under {len(header)} names of the header")
            values: dict[bool, list[float]] = {True: [], False: []}
            for name, cell in zip(header, cells, strict=True):
                values[name.strip().startswith(LABEL_COLUMN)].append(_number(cell, name, path, table.line_num))
            yield _Row(table.line_num, values[False], values[True])


def _number(cell: str, name: str, path: Path, line: int) -> float:
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        raise _wrong(path, line, f"{name} is {cell[:40]!r}, which is no number") from None


def _json_rows(path: Path, task: str) -> Iterator[_Row]:
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                sample = read_line(text, _Sample)
            except ValueError as error:
                raise _wrong(path, line, str(error)) from error
            if sample.task not in {None, task}:
                raise _wrong(path, line, f"a sample of the task {sample.task!r}, wanted are those of {task!r}")
            label = sample.label if isinstance(sample.label, list) else [] if sample.label is None else [sample.label]
            inputs = [math.nan if value is None else value for value in sample.inputs]
            yield _Row(line, inputs, label)


def _joined(rows: Iterator[_Row], path: Path, task: TaskDescription) -> Arrays:
    """float64 arrays as the task shapes them; labels are classes in one dimension."""
    rules = input_rule(task.input), label_rule(task.label)
    lines, inputs, labels = [], [], []
    for row in rows:
        for rule, values in zip(rules, (row.inputs, row.label), strict=True):
            if len(values) != rule.count:
                raise _wrong(path, row.line, rule.wrong_count(len(values), task.task))
        lines.append(row.line)
        inputs.append(np.array(row.inputs, np.float64))
        labels.append(np.array(row.label, np.float64))
    if not lines:
        raise ConfigurationError(f"samples {path}: there is no sample in it")
    shaped = np.reshape(inputs, (len(lines), *task.input.shape))
    label_shape = () if task.label.kind == "class" else (rules[1].count,)
    return Arrays({"inputs": shaped, "labels": np.reshape(labels, (len(lines), *label_shape))}, lines)


def _wrong(path: Path, line: int, reason: str) -> ConfigurationError:
    return ConfigurationError(f"samples {path}, line {line}: {reason}")
