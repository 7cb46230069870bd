"""Objects to the lines of a checkpoint (`graph`). Pure."""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.simulation.checkpoint.graph import (
    EMPTY,
    LARGEST_INLINE,
    LONGEST_INLINE,
    Line,
    Named,
    NotWritableError,
    Vocabulary,
    fields_of,
    never_changes,
)

LINES_AT_ONCE: Final = 4096


def _numpy(value: NDArray[Any]) -> Line:
    if value.dtype.hasobject:
        raise NotWritableError("an array of Python objects has no place in a checkpoint")
    return ["numpy", value.dtype.str, list(value.shape), value.tobytes()]


_WHOLE: Final[Mapping[type, Callable[[Any], Line]]] = {
    str: lambda value: ["plain", value],
    bytes: lambda value: ["plain", value],
    int: lambda value: ["integer", str(value)],
    bytearray: lambda value: ["bytearray", bytes(value)],
    array: lambda value: ["array", value.typecode, value.tobytes()],
    np.ndarray: _numpy,
}
"""What leads to nothing else."""


class GraphWriter:
    """Writes what the kept fields of `named` objects lead to."""

    def __init__(self, vocabulary: Vocabulary, named: Named) -> None:
        self._vocabulary = vocabulary
        self._named = named
        self._classes = {kind: number for number, kind in enumerate(vocabulary.classes)}
        self._spellings = {kind: number for number, kind in enumerate(vocabulary.spellings)}
        self._numbers = {id(each): number for number, each in enumerate(named.objects)}
        self._alive: list[object] = []  # else another object might get the same id
        self._count = len(named.objects)
        self._lines: list[Line] = []
        self._open: deque[tuple[int, object]] = deque()

    def chunks(self) -> Iterator[list[Line]]:
        """The objects, then an empty chunk, then what is in those that can change.

        Raises:
            NotWritableError: something has no place in the vocabulary.
        """
        contents = []
        for number, fields in self._named.kept.items():
            held = self._named.objects[number]
            contents.append([number, *(self._value(getattr(held, name)) for name in fields)])
        while self._open:
            number, held = self._open.popleft()
            contents.append([number, *self._content(held)])
            if len(self._lines) >= LINES_AT_ONCE:
                yield self._lines
                self._lines = []
        yield self._lines
        yield []
        for begin in range(0, len(contents), LINES_AT_ONCE):
            yield contents[begin : begin + LINES_AT_ONCE]

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is bytes:
            if len(value) <= LONGEST_INLINE:
                return value
        elif kind is int:
            if -LARGEST_INLINE <= value <= LARGEST_INLINE:
                return value
        elif value is None or kind is bool or kind is float:
            return value
        number = self._numbers.get(id(value))
        return [self._add(value, kind) if number is None else number]

    def _values(self, values: Iterable[Any]) -> Line:
        return [self._value(each) for each in values]

    def _add(self, value: Any, kind: type) -> int:
        line, is_open = self._line(value, kind)
        number = self._count
        self._count += 1
        self._lines.append(line)
        self._numbers[id(value)] = number
        self._alive.append(value)
        if is_open:
            self._open.append((number, value))
        return number

    def _line(self, value: Any, kind: type) -> tuple[Line, bool]:
        """How an object begins, and whether what is in it follows later."""
        if kind in EMPTY:
            return [EMPTY[kind][0]], True
        if (number := self._classes.get(kind)) is not None:
            return self._object(value, kind, number)
        if (number := self._spellings.get(kind)) is not None:
            return ["spelt", number, *self._values(self._vocabulary.spellings[kind].spelt(value))], False
        if kind is deque:
            return ["deque", value.maxlen], True
        return self._leaf(value, kind), False

    def _object(self, value: Any, kind: type, number: int) -> tuple[Line, bool]:
        if issubclass(kind, Enum):
            return ["member", number, value.value], False
        if never_changes(kind):
            return ["value", number, *self._values(getattr(value, name) for name in fields_of(kind) or ())], False
        return ["object", number], True

    def _leaf(self, value: Any, kind: type) -> Line:
        if (whole := _WHOLE.get(kind)) is not None:
            return whole(value)
        if issubclass(kind, np.generic):
            return ["scalar", value.dtype.str, value.tobytes()]
        if kind is tuple:
            return ["tuple", *self._values(value)]
        if kind is partial and not value.keywords:
            return ["partial", self._value(value.func), *self._values(value.args)]
        if kind is MethodType and (type(value.__self__), value.__name__) in self._vocabulary.actions:
            return ["method", self._value(value.__self__), value.__name__]
        if kind is FunctionType and value in self._vocabulary.functions:
            return ["function", self._vocabulary.functions.index(value)]
        raise NotWritableError(f"{kind.__module__}.{kind.__qualname__} has no place in a checkpoint: {value!r:.200}")

    def _content(self, held: Any) -> Line:
        if isinstance(held, dict):
            return self._values(each for item in held.items() for each in item)
        if type(held) in (list, set, deque):
            return self._values(held)
        if (fields := fields_of(type(held))) is None:
            return self._values(each for item in vars(held).items() for each in item)
        return self._values(getattr(held, name) for name in fields)
