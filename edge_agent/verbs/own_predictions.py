"""`edge-agent predict`: asks the running agent for predictions of one reading, of a file's, or of each that comes."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_agent.client import AgentClient
from edge_agent.core.prediction import Prediction
from edge_agent.sources.file_job import FileJob
from edge_agent.sources.prediction_command import Predicted
from edge_agent.sources.series import SERIES_SEPARATOR
from edge_agent.verbs.own_status import ask, unanswered
from fleet_protocol.errors import ConfigurationError, why_unreadable

FOLLOW_SECONDS = 0.5
"""Between two looks at a file that grows."""
MAX_SHOWN_BYTES = 40
"""Of a reading in an error."""
STANDARD_INPUT = Path("-")
TABLES = (".csv", ".jsonl")
"""Of which a reading is a line, whatever the task takes."""

Reading = bytes | str
"""JSON; or in words why there is none."""


class _WithSeries(msgspec.Struct):
    series: dict[str, msgspec.Raw] = {}


def show_predictions(
    socket_path: Path,
    task: str,
    readings: Iterable[Reading],
    write: Callable[[str], object],
    *,
    as_json: bool,
    follows: bool = False,
) -> int:
    """Write a line for each reading; returns how many have no prediction, which their lines explain. `follows`:
    they follow one another, and not what the device has read.

    Raises:
        ConfigurationError: the agent does not answer.
    """
    refused = 0
    for answer in _answers(socket_path, task, readings, follows=follows):
        is_refused = "error" in answer
        refused += is_refused
        write((json.dumps(answer) if as_json or is_refused else words_of(answer)) + "\n")
    return refused


def _answers(
    socket_path: Path, task: str, readings: Iterable[Reading], *, follows: bool
) -> Iterator[dict[str, object]]:
    try:
        with AgentClient(socket_path) as agent:
            for reading in readings:
                yield _answer(agent, task, reading, follows=follows)
    except OSError as error:
        raise unanswered(socket_path, error) from error


def _answer(agent: AgentClient, task: str, reading: Reading, *, follows: bool) -> dict[str, object]:
    if isinstance(reading, str):
        return {"ok": False, "error": reading}
    try:
        document = json.loads(reading)
    except ValueError as error:
        shown = reading[:MAX_SHOWN_BYTES].decode(errors="replace").strip()
        return {"ok": False, "error": f"{shown!r} is not JSON: {error}"}
    return agent.predict(task, document, follows=follows)


def words_of(answer: dict[str, object]) -> str:
    """One line for people: `3 (97 %), version 7`.

    Raises:
        ConfigurationError: the agent is another release.
    """
    try:
        predicted = msgspec.convert(answer, Predicted)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the agent's answer is not this release's ({error}): restart it") from error
    heads = ", ".join(f"{name} {_said(each)}" for name, each in predicted.heads.items())
    return f"{_said(predicted.prediction) if predicted.prediction else heads}, version {predicted.version}"


def _said(prediction: Prediction) -> str:
    values = prediction.value if isinstance(prediction.value, list) else [prediction.value]
    uncertain = prediction.uncertainty
    if prediction.confidence is not None:
        within = f" ± {uncertain:.0%}" if isinstance(uncertain, float) else ""
        return " ".join(f"{value:.6g}" for value in values) + f" ({prediction.confidence:.0%}{within})"
    if uncertain is None:
        return " ".join(f"{value:.6g}" for value in values)
    by = uncertain if isinstance(uncertain, list) else [uncertain]
    return " ".join(f"{value:.6g} ± {within:.2g}" for value, within in zip(values, by, strict=True))


def takes_names(socket_path: Path, task: str) -> bool:
    """Whether the task's readings hold values by the names of fields, as far as the running agent knows.

    Raises:
        ConfigurationError: the agent does not answer.
    """
    series = msgspec.json.decode(ask(socket_path, "status"), type=_WithSeries).series
    return any(name.partition(SERIES_SEPARATOR)[0] == task for name in series)


def readings_of_file(path: Path, *, mapped: bool) -> Iterator[Reading]:
    """Each line of a table as JSON, or why it can't be read. `mapped` as in `FileJob`.

    Raises:
        ConfigurationError: it is another file, or can't be read.
    """
    from edge_agent.sources.file_reader import read_file  # noqa: PLC0415 - it brings numpy

    if path.suffix.lower() not in TABLES:
        raise ConfigurationError(
            f"{path}: the name must end in {' or '.join(TABLES)}; or give lines of JSON to --file -"
        )
    for reading in read_file(FileJob(str(path), [], 0.0, 0.0, mapped=mapped)):
        if reading.ends:
            raise ConfigurationError(reading.refused)
        yield reading.refused or bytes(reading.document)


def lines_of_file(path: Path, *, follow: bool) -> Iterator[bytes]:
    """Each line of JSON of a file or of standard input, and with `follow` those that are added, until Ctrl-C.

    Raises:
        ConfigurationError: it can't be read.
    """
    if path == STANDARD_INPUT:
        yield from _filled(sys.stdin.buffer)
        return
    try:
        with path.open("rb") as file:
            yield from _growing(file) if follow else _filled(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, 'correct the name')}") from error


def _filled(file: BinaryIO) -> Iterator[bytes]:
    return (line for line in iter(file.readline, b"") if line.strip())


def _growing(file: BinaryIO) -> Iterator[bytes]:
    """A line without its end is still being written. A file that has become shorter is read from its beginning."""
    begun = b""
    while True:
        begun += file.readline()
        if not begun.endswith(b"\n"):
            time.sleep(FOLLOW_SECONDS)
            if os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)
                begun = b""
            continue
        if begun.strip():
            yield begun
        begun = b""
