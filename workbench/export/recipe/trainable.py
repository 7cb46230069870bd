"""Which parameters train: the patterns of `trainable` in `task.toml`, matched against names as shells match files."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from fleet_protocol.errors import ConfigurationError
from workbench.export.layers.moving_buffers import group_of

EVERYTHING = "*"
NEAREST_NAMES = 3
PARAMETRISED = re.compile(r"(?P<layer>(?:.*\.)?)parametrizations\.(?P<tensor>[^.]+)\.original\d*")
"""How torch calls what a parametrised tensor of a layer is computed from."""


def is_selected(name: str, patterns: Iterable[str]) -> bool:
    """Whether a parameter trains, or a buffer moves. A pattern that fits one buffer of a layer selects all of them, and
    one that fits a parametrised tensor what that is computed from.
    """
    names = group_of(name) or (name,)
    if parametrised := PARAMETRISED.fullmatch(name):
        names = (name, parametrised["layer"] + parametrised["tensor"])
    return any(fnmatchcase(each, pattern) for each in names for pattern in patterns)


def check_patterns(names: Sequence[str], patterns: Sequence[str], outside: str, path: str) -> None:
    """Check that every pattern fits one of `names`, and that some parameter trains.

    Raises:
        ConfigurationError: naming the pattern and the names that come nearest; `outside` says what `names` leave out.
    """
    for pattern in patterns:
        if not any(is_selected(name, [pattern]) for name in names):
            raise ConfigurationError(
                f"{path}: trainable: the pattern {pattern!r} fits no parameter{outside};"
                f" {nearest_names(pattern, names)}"
            )
    parameters = [name for name in names if not group_of(name)]
    if not any(is_selected(name, patterns) for name in parameters):
        raise ConfigurationError(
            f"{path}: trainable = {list(patterns)} leaves no parameter to train{outside};"
            f" {nearest_names(patterns[0] if patterns else EVERYTHING, parameters)}"
        )


def nearest_names(pattern: str, names: Sequence[str]) -> str:
    """Words for which of `names` come nearest to a pattern that fits none."""
    found = get_close_matches(pattern, names, n=NEAREST_NAMES, cutoff=0.0)
    return f"the nearest are {', '.join(map(repr, found))}" if found else "there is none"
