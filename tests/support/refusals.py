"""The refusals of the export, each by where it is raised: which there are, and which a test has run into."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from fleet_protocol.errors import ConfigurationError
from workbench.export.layers.layer_context import UnexportableError

TREE = Path(sys.modules[UnexportableError.__module__].__file__).parents[1]
REFUSING = {ConfigurationError.__name__, UnexportableError.__name__}


def refusals() -> set[str]:
    """Every one in the source, such as `recipe/scaling.py _scale 2`: the file, the function, and its number there."""
    return {name for path in TREE.rglob("*.py") for name in _by_line(path).values()}


def being_raised(frame: FrameType | None) -> Iterator[str]:
    """Those whose `raise` statement runs in this frame or outside of it."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(TREE) and (name := _by_line(path).get(frame.f_lineno)):
            yield name
        frame = frame.f_back


@cache
def _by_line(path: Path) -> dict[int, str]:
    """Line to the refusal whose `raise` statement is on it."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    makers = REFUSING | {
        each.name for each in functions if isinstance(each.returns, ast.Name) and each.returns.id in REFUSING
    }
    found: dict[int, str] = {}
    for function in functions:
        raises = [node for node in _own_nodes(function) if isinstance(node, ast.Raise) and _called(node) in makers]
        for number, node in enumerate(sorted(raises, key=lambda each: each.lineno), 1):
            name = f"{path.relative_to(TREE)} {function.name} {number}"
            found |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), name)
    return found


def _called(node: ast.Raise) -> str:
    """The name of what makes the exception."""
    return node.exc.func.id if isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) else ""


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Its nodes without those of functions inside of it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef):
            yield node
            yield from _own_nodes(node)
