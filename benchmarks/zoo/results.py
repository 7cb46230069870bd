"""The file that outcomes are appended to, one JSON object a line: a run that was stopped goes on from there."""

from pathlib import Path

import msgspec

from benchmarks.zoo.case import Case, Outcome
from fleet_protocol.errors import ConfigurationError


class Results:
    """Outcomes by case and fingerprint; those of other bundles or lengths stay in the file and do not count."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        known = read_results(path) if path is not None and path.is_file() else []
        self._known = {(outcome.case, outcome.fingerprint): outcome for outcome in known}
        if path is not None and path.is_file():
            _end_at_a_line(path)

    def find(self, case: Case, fingerprint: str) -> Outcome | None:
        """The outcome of a case that was run before."""
        return self._known.get((case, fingerprint))

    def add(self, outcome: Outcome) -> None:
        """Append one, so that it is there after whatever comes."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")


def read_results(path: Path) -> list[Outcome]:
    """All outcomes of a file, a line that was cut off by the end of a run left out.

    Raises:
        ConfigurationError: a line is no outcome of this zoo.
        OSError: the file can't be read.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    return [_outcome(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.endswith(b"\n")]


def _end_at_a_line(path: Path) -> None:
    """Take away what a run that was ended wrote of a line, or the next one would be written behind it."""
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def _outcome(line: bytes, place: str) -> Outcome:
    try:
        return msgspec.json.decode(line, type=Outcome)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{place}: not a result of this zoo ({error}); give another file") from error
