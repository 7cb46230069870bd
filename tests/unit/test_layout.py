"""What is in this folder stays pure: no child process, no server, no coordinator's database."""

import ast
from pathlib import Path

FORBIDDEN = {
    "concurrent",
    "multiprocessing",
    "sqlalchemy",
    "subprocess",
    "tests.support.agent",
    "tests.support.bench",
    "tests.support.broker",
    "tests.support.cards",
    "tests.support.connected_device",
    "tests.support.container",
    "tests.support.coordinator",
    "tests.support.inviting_server",
    "tests.support.postgresql",
    "tests.support.process",
}
SERVICES = {"broker", "connect", "coordinator", "database", "postgresql"}
"""Fixtures of tests/conftest.py that start something."""


def names_in(path: Path) -> set[str]:
    """Every module that a file imports, with the package around it, and the shared fixtures that its tests ask for."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    tests = [function for function in functions if function.name.startswith("test_")]
    found = {argument.arg for test in tests for argument in test.args.args} - {function.name for function in functions}
    for node in nodes:
        match node:
            case ast.Import(names):
                found |= {name for alias in names for name in (alias.name, alias.name.split(".")[0])}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, module.split(".")[0], *(f"{module}.{alias.name}" for alias in names)}
    return found


def test_tests_in_this_folder_start_nothing() -> None:
    impure = {path.name: names_in(path) & (FORBIDDEN | SERVICES) for path in Path(__file__).parent.glob("*.py")}
    assert {name: found for name, found in impure.items() if found} == {}
