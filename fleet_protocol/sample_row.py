"""The values that a source gives for one sample, as a list or by name, in the order of their row. Pure."""

from collections.abc import Iterator, Mapping

from fleet_protocol.sample_rules import ValueRule
from fleet_protocol.sample_schema import WHOLE_ROW

Values = float | list[float] | None
Given = Values | dict[str, float | list[float]]
"""One input or label; or, where a task has several, each by its name."""


def in_order(given: Given, rules: Mapping[str, ValueRule], task: str) -> Iterator[tuple[ValueRule, list[float]]]:
    """Each rule with the values that it is for; whether these fit is for the caller to ask.

    Raises:
        ValueError: several are given and one is wanted, or the other way round, or one has a name that the task has
            not.
    """
    if WHOLE_ROW in rules:
        rule = rules[WHOLE_ROW]
        if isinstance(given, dict):
            raise ValueError(f"{rule.name} is given by the names {_listed(given)}; {task} takes one without a name")
        yield rule, as_list(given)
        return
    named = given if isinstance(given, dict) else None
    if named is None:
        what = next(iter(rules.values())).name.partition(".")[0]
        raise ValueError(f'{what} are given without names; {task} takes {_listed(rules)}: {{"name": [...], ...}}')
    if unknown := [name for name in named if name not in rules]:
        raise ValueError(f"{unknown[0]!r} is not known to {task}, which takes {_listed(rules)}")
    for name, rule in rules.items():
        yield rule, as_list(named.get(name))


def as_list(values: Values) -> list[float]:
    """The values of one input or label; none where it is left out."""
    return values if isinstance(values, list) else [] if values is None else [values]


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"
