"""What a simulation leaves in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from fleet_protocol.errors import ConfigurationError

SUMMARY_FILE, HISTORY_FILE = "summary.json", "history.jsonl"


class Written(Protocol):
    """What a simulation gives."""

    @property
    def summary(self) -> msgspec.Struct: ...

    @property
    def history(self) -> Sequence[msgspec.Struct]: ...


def write_result(result: Written, out: Path) -> None:
    """The summary and, one JSON object a line, the history. The same simulation gives the same bytes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SUMMARY_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(result.summary), indent=2) + b"\n")
        (out / HISTORY_FILE).write_bytes(b"".join(msgspec.json.encode(point) + b"\n" for point in result.history))
    except OSError as error:
        raise ConfigurationError(f"{out}: can't be written: {error.strerror}; choose another --out") from error
