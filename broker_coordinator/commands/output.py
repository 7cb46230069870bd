"""How commands print their results: aligned words for people, one JSON value with `--json`."""

import json
import sys
from collections.abc import Mapping, Sequence

Row = Mapping[str, object]


def write_rows(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool, when_empty: str) -> None:
    """A list: as JSON with all fields, else one line each with `columns`."""
    if as_json:
        _write_json(rows)
        return
    for row in rows:
        sys.stdout.write("  ".join(_word(row[column]) for column in columns) + "\n")
    if not rows:
        sys.stdout.write(when_empty + "\n")


def write_fields(row: Row, *, as_json: bool) -> None:
    """One thing: a line per field; the entries of a list below its name."""
    if as_json:
        _write_json(row)
        return
    for name, value in row.items():
        if isinstance(value, list):
            sys.stdout.write(f"{name}\n")
            for each in value:
                sys.stdout.write("  " + "  ".join(f"{key} {_word(found)}" for key, found in each.items()) + "\n")
        else:
            sys.stdout.write(f"{name:12} {_word(value)}\n")


def _write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _word(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case Mapping():
            return " ".join(f"{key}={_word(found)}" for key, found in value.items()) or "-"
        case _:
            return str(value)
