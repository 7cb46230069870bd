"""Commands that print results: aligned words for people, one JSON value with `--json`."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from fleet_host.command_line import Verbs, add_verb
from fleet_protocol.printable import printable
from fleet_protocol.topics import is_blob_hash

GAP = "  "
ELLIPSIS = "…"
CHARACTERS_OF_A_HASH = 12
NARROWEST_COLUMN = 8
"""A column of a table is not cut further."""
NARROWEST_NAME = 12
"""The values of all fields begin in one column, and mostly in the same one."""

Row = Mapping[str, object]
AddVerb = Callable[[str, str], argparse.ArgumentParser]
"""Adds a verb, of which are given the name and a sentence on what it does."""


def add_noun(nouns: Verbs, noun: str, sentence: str, *parents: argparse.ArgumentParser) -> AddVerb:
    """Add a noun whose verbs print results, with `--json` before or after the verb; returns what adds a verb to it."""
    added = add_verb(nouns, noun, sentence, *parents, _json_option())
    added.set_defaults(json=False)
    verbs = added.add_subparsers(dest="action", required=True, metavar="VERB")
    options = (*parents, _json_option())
    return lambda name, sentence: add_verb(verbs, name, sentence, *options)


def write_rows(rows: Sequence[Row], columns: Sequence[str], *, as_json: bool, when_empty: str) -> None:
    """A list: as JSON with all fields, else a table of `columns` that is no wider than the terminal."""
    if as_json:
        _write_json(rows)
    elif rows:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        sys.stdout.writelines(line + "\n" for line in table(rows, columns, width))
    else:
        sys.stdout.write(when_empty + "\n")


def table(rows: Sequence[Row], columns: Sequence[str], width: int | None) -> list[str]:
    """Aligned lines under a header. Hashes are cut to what tells them apart; then the widest columns to fit `width`."""
    cells = [[column.replace("_", " ").upper() for column in columns]]
    cells += [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    while width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width and max(widths) > NARROWEST_COLUMN:
        widths[widths.index(max(widths))] -= 1
    return [GAP.join(map(_fitted, line, widths)).rstrip() for line in cells]


def _cell(value: object) -> str:
    word = _word(value)
    return word[:CHARACTERS_OF_A_HASH] + ELLIPSIS if is_blob_hash(word) else word


def _fitted(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + ELLIPSIS


def write_fields(row: Row, *, as_json: bool) -> None:
    """One thing: a line per field; the entries of a list below its name."""
    if as_json:
        _write_json(row)
        return
    width = max((len(name) for name, value in row.items() if not isinstance(value, list)), default=0)
    for name, value in row.items():
        if isinstance(value, list):
            sys.stdout.write(f"{name}\n")
            for each in value:
                words = [f"{key} {_word(found)}" for key, found in each.items()] if isinstance(each, dict) else [each]
                sys.stdout.write("  " + "  ".join(words) + "\n")
        else:
            sys.stdout.write(f"{name:{max(width, NARROWEST_NAME)}} {_word(value)}\n")


def _json_option() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON value")
    return parent


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
            return printable(str(value))
