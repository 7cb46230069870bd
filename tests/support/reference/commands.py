"""The reference of the commands, made from what parses them: argparse, and typer for `edgeflock`."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

import workbench.cli
from tests.support.completions import PARSERS
from tests.support.reference.words import MADE_BY, flat, rows

WORKBENCH = workbench.cli.PROGRAM
ABOUT = (
    "What each command takes, from the program itself: `--help` behind any of these says the same. A default is in"
    " brackets where the words have one, and in its own column where they don't."
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One argument or option: how it is written, what it means, and its default, empty where there is none."""

    written: str
    words: str
    default: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command or a group of them: its whole name, one sentence, what it takes, and what is below it."""

    name: str
    words: str
    takes: tuple[Taken, ...]
    below: tuple["Command", ...]


def programs() -> tuple[Command, ...]:
    """All commands that a package installs, by name."""
    of_argparse = [_from_argparse(program, parser, parser.description) for program, parser in PARSERS.items()]
    of_typer = _from_typer(WORKBENCH, typer.main.get_command(workbench.cli.app))
    return tuple(sorted([*of_argparse, of_typer], key=lambda command: command.name))


def document(commands: Iterable[Command]) -> str:
    """The whole page: a heading for each program, and for each command below one."""
    parts = [f"# Reference of the commands\n\n{MADE_BY}\n\n{ABOUT}\n"]
    for command in commands:
        parts += _sections(command, 2)
    return "\n".join(parts)


def _sections(command: Command, level: int) -> Iterator[str]:
    heading = f"{'#' * level} `{command.name}`\n\n{command.words}\n"
    taken = [(f"`{each.written}`", each.default and f"`{each.default}`", each.words) for each in command.takes]
    yield heading + (f"\n{rows(('takes', 'default', 'meaning'), taken)}" if taken else "")
    for each in command.below:
        yield from _sections(each, min(level + 1, 4))


def _from_argparse(name: str, parser: argparse.ArgumentParser, words: str | None) -> Command:
    below: list[Command] = []
    takes: list[Taken] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help for each in action._choices_actions}
            below += [
                _from_argparse(f"{name} {verb}", each, each.description or helps.get(verb))
                for verb, each in action.choices.items()
            ]
        elif not isinstance(action, argparse._HelpAction) and action.help is not argparse.SUPPRESS:
            takes.append(_taken(action))
    return Command(name, flat(words or ""), tuple(takes), tuple(below))


def _taken(action: argparse.Action) -> Taken:
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    value = value if isinstance(value, str) else " ".join(value)
    several = {"*": f"[{value} ...]", "+": f"{value} ...", "?": f"[{value}]"}.get(str(action.nargs), value)
    if not action.option_strings:
        written = several
    else:
        written = ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {several}")
    said = flat(action.help or "") % (vars(action) | {"prog": ""})
    return Taken(written, said, "" if action.nargs == 0 or not action.option_strings else _default(action.default))


def _from_typer(name: str, command: Any) -> Command:
    below: Mapping[str, Any] = getattr(command, "commands", {})
    takes = tuple(_of_typer(each) for each in command.params if not each.hidden)
    inner = tuple(_from_typer(f"{name} {verb}", each) for verb, each in sorted(below.items()) if not each.hidden)
    return Command(name, flat(command.help or ""), takes, inner)


def _of_typer(parameter: Any) -> Taken:
    value = parameter.metavar or parameter.name.upper()
    words = flat(parameter.help or "")
    if parameter.param_type_name == "argument":
        return Taken(value, words, "")
    switches = "/".join([*parameter.opts, *parameter.secondary_opts])
    return (
        Taken(switches, words, "")
        if parameter.is_flag
        else Taken(f"{switches} {value}", words, _default(parameter.default))
    )


def _default(value: Any) -> str:
    if value is None or value is argparse.SUPPRESS or isinstance(value, bool) or value in ((), []):
        return ""
    return str(getattr(value, "value", value))
