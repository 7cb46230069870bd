"""Commands that print results: aligned words for people, one JSON value with `--json`."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence

from fleet_host.command_line import Verbs, add_verb

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
            return str(value)
