"""Samples from a table of named readings, prepared as a device prepares them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.preparation.preparation import Moment, Preparation
from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.preparation.waiting import Labelled
from edge_agent.sources.file_job import FileJob
from edge_agent.sources.file_reader import read_file
from edge_agent.sources.json_path import JsonPath
from edge_agent.sources.named_form import NamedForm
from edge_agent.sources.reading_time import seconds_of
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.reading_plan import RESERVED, ReadingPlan
from fleet_protocol.task_description import TaskDescription

TABLES = (".csv", ".jsonl")
FIRST_MOMENT = 0.0
"""Of readings without a `time`: they are a step of the window apart."""


@dataclass(frozen=True, slots=True)
class PreparedTable:
    """`samples` in the order in which a device makes them, and what was wrong with other rows: how many by reason, and
    the words of the first.
    """

    samples: Samples
    refused: Mapping[str, int]
    first_refusal: str


def holds_readings(path: Path, task: TaskDescription) -> bool:
    """Whether a file is a table whose first row has a field of the task's readings."""
    if task.readings is None or path.suffix not in TABLES:
        return False
    first = next(_documents(path), None)
    return isinstance(first, dict) and not task.readings.input_fields.keys().isdisjoint(first)


def prepare_table(path: Path, task: TaskDescription, columns: Mapping[str, str] | None = None) -> PreparedTable:
    """The samples in a table of readings, `.csv` or `.jsonl`, a reading a row. `columns` are those that have another
    name than their field, or than `time` and `id`.

    Raises:
        ConfigurationError: the file can't be read, or no sample can be made of it.
    """
    return prepare_rows(_documents(path), task, columns, name=str(path))


def write_samples(path: Path, bundle: Path, out: Path, columns: Mapping[str, str]) -> str:
    """Write the samples in a table of readings as a file of samples; returns a sentence about them.

    Raises:
        ConfigurationError: the table or the bundle can't be read, or `out` can't be written.
    """
    task = load_bundle(bundle).description
    if out.suffix != ".npz":
        raise ConfigurationError(f"--out {out}: the name must end in .npz")
    table = prepare_table(path, task, columns)
    try:
        np.savez(out, inputs=table.samples.inputs, labels=table.samples.labels)
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {why_unreadable(error, 'name another file')}") from error
    counts = ", ".join(f"{count} {reason}" for reason, count in table.refused.items())
    left_out = f"; left out: {counts}, the first {table.first_refusal}" if counts else ""
    return f"{out}: {len(table.samples)} samples of {task.task}{left_out}"


def prepare_rows(
    rows: Iterable[object], task: TaskDescription, columns: Mapping[str, str] | None = None, *, name: str
) -> PreparedTable:
    """The same of documents, all of one series; `name` says where they are from.

    Raises:
        ConfigurationError: no sample can be made of them.
    """
    plan, form = _plan(task), _form(task, columns or {})
    series, made = Preparation(plan), list[Labelled]()
    refused, first_refusal = Counter[str](), ""
    step = plan.window.step_seconds if plan.window else 1.0
    for row, document in enumerate(rows):
        try:
            reading = form.reading(document, {})
            at = FIRST_MOMENT + row * step if reading.time is None else seconds_of(reading.time)
            made += series.take(reading.values, Moment(at), reading.identifier).samples
        except ReadingRefusedError as error:
            refused[error.reason] += 1
            first_refusal = first_refusal or f"row {row}: {error.reason}: {error}"
    if not made:
        why = first_refusal or "too few readings, or none with a label"
        raise ConfigurationError(f"readings {name}: they make no sample of {task.task}: {why}")
    return PreparedTable(_samples(made, task), refused, first_refusal)


def _plan(task: TaskDescription) -> ReadingPlan:
    if task.readings is None:
        raise ConfigurationError(f"{task.task} takes no named readings; describe them under [readings] of task.toml")
    return task.readings


def _form(task: TaskDescription, columns: Mapping[str, str]) -> NamedForm:
    if unknown := sorted(columns.keys() - {*_plan(task).fields, *RESERVED}):
        known = ", ".join((*_plan(task).fields, *RESERVED))
        raise ConfigurationError(f"{task.task} has no field {unknown[0]!r}; its readings have {known}")
    paths = {name: JsonPath(column, (column,)) for name, column in columns.items()}
    time, identifier = (paths.pop(name, None) for name in RESERVED)
    if not paths:
        return NamedForm(time=time, identifier=identifier)
    others = {name: JsonPath(name, (name,)) for name in _plan(task).fields}
    return NamedForm(others | paths, time, identifier)


def _documents(path: Path) -> Iterator[object]:
    for reading in read_file(FileJob(str(path), [], 0.0, 0.0, mapped=True)):
        if reading.refused:
            raise ConfigurationError(f"readings {reading.refused}")
        yield msgspec.json.decode(reading.document)


def _samples(made: list[Labelled], task: TaskDescription) -> Samples:
    inputs = np.array([inputs for inputs, _ in made], np.float32).reshape(-1, *task.input.shape)
    labels = np.array([[] if label is None else [label] for _, label in made], np.float32)
    return Samples(inputs, labels[:, 0].astype(np.int64) if task.label.is_index else labels)
