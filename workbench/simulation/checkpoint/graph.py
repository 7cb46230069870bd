"""What a graph of objects is written as: objects that are one stay one. Pure.

Reading makes objects of the classes that a vocabulary names, without running their code, and nothing else; so a file
can't bring code with it. Objects have numbers in the order in which they are met. What can't change is written whole,
behind what it is made of; of what can, there is first an empty one, and behind all others what is in it: it may lead
back to itself.
"""

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

Line = list[Any]
"""A number or a kind, and values: plain ones as they are, and objects as a list of their number."""

LONGEST_INLINE: Final = 32
"""Texts and bytes up to this, names and keys among them, are written where they stand: of a million devices, each would
be an object in a table else. Longer ones are objects that others share.
"""
LARGEST_INLINE: Final = 2**63 - 1

Fields = tuple[str, ...]


class Spelling(NamedTuple):
    """How objects of a class are written: as the values that `spelt` gives, of which `read` makes one."""

    spelt: Callable[[Any], Sequence[Any]]
    read: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may be in a graph: objects of `classes` by their fields, of others by their `spellings`; methods named in
    `actions` with their class; and `functions`.
    """

    classes: tuple[type, ...]
    actions: frozenset[tuple[type, str]]
    functions: tuple[Callable[..., Any], ...] = ()
    spellings: Mapping[type, Spelling] = dataclasses.field(default_factory=dict)

    def signature(self) -> list[str]:
        """The classes with their fields: what was written with another one can't be read."""
        named = [f"{each.__module__}.{each.__qualname__} {fields_of(each) or ''}" for each in self.classes]
        return [*named, *(f"{each.__module__}.{each.__qualname__} spelt" for each in self.spellings)]


@dataclass(frozen=True, slots=True)
class Named:
    """The objects that are there at both ends, in the same order. Of those in `kept`, by their place, these fields are
    written and set; of the others nothing is.
    """

    objects: Sequence[object]
    kept: Mapping[int, Fields]


class NotWritableError(TypeError):
    """An object has no place in a graph; says which."""


_FIELDS: Final[dict[type, Fields | None]] = {}


def fields_of(kind: type) -> Fields | None:
    """The fields of a class; None where each object has its own."""
    if kind not in _FIELDS:
        _FIELDS[kind] = _found_fields(kind)
    return _FIELDS[kind]


def _found_fields(kind: type) -> Fields | None:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if issubclass(kind, tuple):
        return tuple(kind._fields)  # type: ignore[attr-defined]  # a NamedTuple
    slots = tuple(name for each in kind.__mro__ for name in vars(each).get("__slots__", ()))
    return slots or None


def never_changes(kind: type) -> bool:
    """Whether objects of a class stay as they are made."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.frozen
    if dataclasses.is_dataclass(kind):
        return bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]  # every dataclass has it
    return issubclass(kind, tuple)


EMPTY: Final[Mapping[type, tuple[str, Callable[[], Any]]]] = {
    list: ("list", list),
    dict: ("dict", dict),
    OrderedDict: ("ordered", OrderedDict),
    Counter: ("counter", Counter),
    set: ("set", set),
}
"""Built-in classes that begin empty, with the names that they are written under."""
