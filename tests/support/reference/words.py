"""What all references are made of: one paragraph out of several lines, tables, and limits."""

from collections.abc import Iterable, Sequence
from typing import Any

MADE_BY = "<!-- made by: python -m tests.support.reference -->"


def flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def limits(number: Any) -> str:
    """What bounds a number, behind a comma; a whole limit is written as one, whichever type it has."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = {word: getattr(number, name, None) for name, word in words.items()}
    return "".join(
        f", {word} {int(limit) if float(limit).is_integer() else limit}"
        for word, limit in found.items()
        if limit is not None
    )


def rows(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    return _row(heads) + f"|{'---|' * len(heads)}\n" + "".join(map(_row, cells))


def _row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |\n"
