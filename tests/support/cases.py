"""Cases of one kind: some are in every run, and the others, which show the same of something else, in long ones."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(names: Iterable[str], *, long: Collection[str]) -> list[Any]:
    """The names as parameters of a test; those of `long`, of which each has to be there, are marked so."""
    known = list(names)
    assert set(long) <= set(known), f"no cases: {sorted(set(long) - set(known))}"
    return [pytest.param(name, id=name, marks=[pytest.mark.long] if name in long else []) for name in known]
