"""The file that measurements are appended to, one model a line: a run that was stopped goes on from there."""

from pathlib import Path

import msgspec

from benchmarks.model_zoo.measure import Measured
from fleet_protocol.errors import ConfigurationError


class Line(msgspec.Struct, frozen=True):
    """A model's name and what was measured of it."""

    model: str
    measured: Measured


def read_results(path: Path) -> dict[str, Measured]:
    """By model, the latest of each; a line that was cut off by the end of a run is taken away.

    Raises:
        ConfigurationError: a line is no measurement; the file stays as it is.
        OSError: the file can't be read or written.
    """
    if not path.exists():
        return {}
    written = path.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if written and not whole:
        raise ConfigurationError(f"{path}: no results of this zoo (no whole line); delete it, or give another file")
    try:
        found = {line.model: line.measured for line in msgspec.json.Decoder(Line).decode_lines(whole)}
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: no results of this zoo ({error}); give another file") from error
    if whole != written:
        path.write_bytes(whole)
    return found


def add_result(path: Path, line: Line) -> None:
    """Append it, so that it is there after whatever comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")
