"""The files in completions/, made from the command lines: `python -m tests.support.completions` makes them anew.

They need nothing on a device. shtab, which writes them, is for developers alone; `edgeflock` completes by typer, and
its `edgeflock helper` as `edgeflock-helper`.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import broker_coordinator.cli
import edge_agent.cli
import session_relay.helper.cli
from session_relay.helper.configuration import PROGRAM

FOLDER = Path(__file__).parents[2] / "completions"
PARSERS: Mapping[str, argparse.ArgumentParser] = {
    "edge-agent": edge_agent.cli.parser(),
    "broker-coordinator": broker_coordinator.cli.parser(),
    PROGRAM: session_relay.helper.cli.parser(),
}
PATHS = frozenset({"FILE", "FOLDER", "OUT"})
"""Metavars of what is completed as a path."""


def walk(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, argparse.Action]]:
    """Every argument of a parser and of the parsers of its verbs, with the parser that takes it."""
    for action in parser._actions:
        yield parser, action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from walk(verb)


def main() -> None:
    """Write the files."""
    import shtab  # noqa: PLC0415 - the tests read what was written, and need no shtab

    for program, parser in PARSERS.items():
        for _, action in walk(parser):
            if action.metavar in PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        (FOLDER / f"{program}.bash").write_text(shtab.complete(parser, "bash"), encoding="utf-8")


if __name__ == "__main__":
    main()
