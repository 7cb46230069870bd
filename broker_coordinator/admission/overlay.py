"""Changes over a mapping, which a batch can discard. Pure."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol, Self, TypeVar, overload

Key = TypeVar("Key")
Value = TypeVar("Value")
Other = TypeVar("Other")


class Overlay(MutableMapping[Key, Value]):
    """Changes over a mapping that they do not affect; nothing is deleted, and no value is None.

    It is read many times per message: `collections.ChainMap` takes several times as long.
    """

    __slots__ = ("_base", "changes")

    def __init__(self, base: Mapping[Key, Value]) -> None:
        self._base = base
        self.changes: dict[Key, Value] = {}

    @overload
    def get(self, key: Key) -> Value | None: ...
    @overload
    def get(self, key: Key, default: Value | Other) -> Value | Other: ...
    def get(self, key: Key, default: Any = None) -> Any:
        """The changed value, or else the one below, or else `default`."""
        found = self.changes.get(key)
        return self._base.get(key, default) if found is None else found

    def __getitem__(self, key: Key) -> Value:
        found = self.changes.get(key)
        return self._base[key] if found is None else found

    def __setitem__(self, key: Key, value: Value) -> None:
        self.changes[key] = value

    def __delitem__(self, key: Key) -> None:
        raise TypeError(f"{key!r} can't be deleted from an overlay")

    def __iter__(self) -> Iterator[Key]:
        return iter({**self._base, **self.changes})

    def __len__(self) -> int:
        return len(self._base) + sum(key not in self._base for key in self.changes)


class Copyable(Protocol):
    """A value of a view that changes in place."""

    def copy(self) -> Self:
        """One that may be changed by itself."""
        ...


Changing = TypeVar("Changing", bound=Copyable)


def own(mapping: MutableMapping[Key, Changing], key: Key, new: Callable[[], Changing]) -> Changing:
    """The value that may be changed in place; in a branch, it is copied when it is asked for first."""
    if not isinstance(mapping, Overlay):
        if (kept := mapping.get(key)) is None:
            kept = mapping[key] = new()
        return kept
    if (found := mapping.changes.get(key)) is None:
        below = mapping.get(key)
        found = mapping.changes[key] = new() if below is None else below.copy()
    return found


def changes_in(overlay: Mapping[Key, Value]) -> Mapping[Key, Value]:
    """What differs from the mapping below; of any other mapping, all of it."""
    return overlay.changes if isinstance(overlay, Overlay) else overlay
