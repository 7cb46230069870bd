"""Samples as text, one a line: CSV with a header, or JSON as the sample socket of a device takes it."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_line import read_line
from fleet_protocol.sample_row import Given, in_order
from fleet_protocol.sample_rules import ValueRule, input_rules, label_rules
from fleet_protocol.sample_schema import qualified, runs
from fleet_protocol.task_description import TaskDescription

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
    inputs: list[float] | dict[str, float | list[float]]
    label: Given = None
    task: str | None = None


def read_csv(path: Path, task: TaskDescription) -> Arrays:
    """A header, then a sample in each line: its inputs in C order, and its label under `LABEL_COLUMN`; of several, one
    after the other as in the task. An empty cell is a missing value.

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
    return _joined(_json_rows(path, task), path, task)


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


def _json_rows(path: Path, task: TaskDescription) -> Iterator[_Row]:
    inputs, labels = input_rules(task.each_input), label_rules(task.each_label)
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                sample = read_line(text, _Sample)
            except ValueError as error:
                raise _wrong(path, line, str(error)) from error
            if sample.task not in {None, task.task}:
                raise _wrong(path, line, f"a sample of the task {sample.task!r}, wanted are those of {task.task!r}")
            try:
                yield _Row(line, _in_row(sample.inputs, inputs, task.task), _in_row(sample.label, labels, task.task))
            except ValueError as error:
                raise _wrong(path, line, str(error)) from error


def _in_row(given: Given, rules: Mapping[str, ValueRule], task: str) -> list[float]:
    """The values of all inputs, or labels; raises ValueError where there are more or fewer than one takes."""
    row: list[float] = []
    for rule, values in in_order(given, rules, task):
        if len(values) != rule.count:
            raise ValueError(rule.wrong_count(len(values), task))
        row += values
    return row


def _joined(rows: Iterator[_Row], path: Path, task: TaskDescription) -> Arrays:
    """float64 arrays as the task shapes them, each input and label by its name."""
    kinds = {"inputs": input_rules(task.each_input), "labels": label_rules(task.each_label)}
    lines: list[int] = []
    tables: dict[str, list[NDArray[np.float64]]] = {what: [] for what in kinds}
    for row in rows:
        for (what, rules), values in zip(kinds.items(), (row.inputs, row.label), strict=True):
            if len(values) != sum(rule.count for rule in rules.values()):
                raise _wrong(path, row.line, _wrong_count(rules, len(values), task.task))
            tables[what].append(np.array(values, np.float64))
        lines.append(row.line)
    if not lines:
        raise ConfigurationError(f"samples {path}: there is no sample in it")
    inputs, labels = (np.reshape(tables[what], (len(lines), -1)) for what in kinds)
    arrays = {
        qualified("inputs", name): inputs[:, place].reshape(-1, *schema.shape)
        for name, schema, place in runs(task.each_input)
    }
    arrays |= {
        qualified("labels", name): labels[:, place].reshape(-1, *label.value_shape)
        for name, label, place in runs(task.each_label)
        if label.size
    }
    return Arrays(arrays, lines)


def _wrong_count(rules: Mapping[str, ValueRule], found: int, task: str) -> str:
    if len(rules) == 1:
        return next(iter(rules.values())).wrong_count(found, task)
    wanted = ", ".join(f"{rule.count} of {rule.name}" for rule in rules.values())
    return f"{found} values, {task} takes {wanted}, in this order"


def _wrong(path: Path, line: int, reason: str) -> ConfigurationError:
    return ConfigurationError(f"samples {path}, line {line}: {reason}")
