"""docs/log-events.md lists exactly the events that the programs log, each with its level."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\w+) \| `(\w+)` \|", re.MULTILINE)
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
PROGRAMS = {
    "edge-agent": "edge_agent",
    "edgeflock-helper": "session_relay/helper",
    "broker-coordinator": "broker_coordinator",
    "session_relay.relay": "session_relay/relay",
    "prompt_synthesis": "prompt_synthesis",
}


def documented(program: str) -> set[tuple[str, str]]:
    section = (ROOT / "docs" / "log-events.md").read_text().split(f"## `{program}`")[1].split("\n## ")[0]
    return {(level, event) for level, event in ROW.findall(section)}


def log_calls(package: str) -> Iterator[ast.Call]:
    """Every call of a method of `logger`."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("logger"))):
                    yield node


def logged(package: str) -> set[tuple[str, str]]:
    found = set()
    for call in log_calls(package):
        match call:
            case ast.Call(
                func=ast.Attribute(attr=method),
                args=[ast.Call(func=ast.Name("log_line"), args=[ast.Constant(str(event))])],
            ):
                found.add((LEVELS[method], event))
            case _:
                pytest.fail(
                    f"{package} line {call.lineno}: {ast.unparse(call)} is not logger.LEVEL(log_line(EVENT, ...))"
                )
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_table_lists_the_events_of_the_code_with_their_levels(program):
    assert documented(program) == logged(PROGRAMS[program])


@pytest.mark.parametrize("package", PROGRAMS.values())
def test_event_names_are_snake_case(package):
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", event) for _, event in logged(package))
