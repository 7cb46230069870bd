"""The lines of a checkpoint (`graph`) to objects. Pure."""

import dataclasses
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from workbench.simulation.checkpoint.graph import EMPTY, Line, Named, Vocabulary, fields_of

_WHOLE: Final[Mapping[str, Callable[..., Any]]] = {
    **dict(EMPTY.values()),
    "plain": lambda value: value,
    "integer": int,
    "bytearray": bytearray,
    "deque": lambda maximum: deque(maxlen=maximum),
    "array": array,
    "numpy": lambda dtype, shape, data: np.frombuffer(data, dtype).reshape(shape).copy(),
    "scalar": lambda dtype, data: np.frombuffer(data, dtype)[0],
}
"""Makes what leads to nothing else, or is empty at first."""


class GraphReader:
    """Reads what `GraphWriter` wrote, and sets the kept fields of the `named` objects."""

    def __init__(self, vocabulary: Vocabulary, named: Named) -> None:
        self._vocabulary = vocabulary
        self._named = named
        self._spellings = list(vocabulary.spellings.values())
        self._found: list[Any] = list(named.objects)
        self._composed: Mapping[str, Callable[..., Any]] = {
            "object": self._object,
            "value": self._of_values,
            "member": self._member,
            "spelt": self._spelt,
            "tuple": self._tuple,
            "method": self._method,
            "partial": self._partial,
            "function": self._function,
        }

    def read(self, chunks: Iterable[list[Line]]) -> None:
        """Read all chunks.

        Raises:
            LookupError, TypeError, ValueError: they are not what was written.
        """
        left = iter(chunks)
        for lines in left:
            if not lines:
                break
            for line in lines:
                self._found.append(self._made(line))  # which may lead to the one before
        for lines in left:
            for number, *content in lines:
                self._fill(number, self._values(content))

    def _value(self, value: Any) -> Any:
        if type(value) is not list:
            return value
        (number,) = value
        return self._found[number]

    def _values(self, values: Iterable[Any]) -> list[Any]:
        return [self._value(each) for each in values]

    def _made(self, line: Line) -> Any:
        kind, *rest = line
        if (make := _WHOLE.get(kind) or self._composed.get(kind)) is None:
            raise ValueError(f"an object of the kind {kind!r}")
        return make(*rest)

    def _object(self, number: int) -> Any:
        return object.__new__(self._vocabulary.classes[number])

    def _member(self, number: int, value: Any) -> Any:
        return self._vocabulary.classes[number](value)

    def _of_values(self, number: int, *values: Any) -> Any:
        return _value_of(self._vocabulary.classes[number], self._values(values))

    def _spelt(self, number: int, *values: Any) -> Any:
        return self._spellings[number].read(*self._values(values))

    def _tuple(self, *values: Any) -> Any:
        return tuple(self._values(values))

    def _partial(self, action: Any, *arguments: Any) -> Any:
        return partial(self._value(action), *self._values(arguments))

    def _function(self, number: int) -> Any:
        return self._vocabulary.functions[number]

    def _method(self, of: Any, name: str) -> Any:
        held = self._value(of)
        if (type(held), name) not in self._vocabulary.actions:
            raise ValueError(f"the method {name!r} of {type(held).__name__}")
        return getattr(held, name)

    def _fill(self, number: int, content: list[Any]) -> None:
        held = self._found[number]
        if (kept := self._named.kept.get(number)) is not None:
            for name, value in zip(kept, content, strict=True):
                object.__setattr__(held, name, value)
        elif isinstance(held, dict):
            for key, value in _pairs(content):
                held[key] = value
        elif isinstance(held, set):
            held.update(content)
        elif isinstance(held, list | deque):
            held.extend(content)
        else:
            fields = fields_of(type(held))
            for name, value in _pairs(content) if fields is None else zip(fields, content, strict=True):
                object.__setattr__(held, name, value)


def _pairs(content: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(content[::2], content[1::2], strict=True)


def _value_of(kind: type, values: Sequence[Any]) -> Any:
    if not dataclasses.is_dataclass(kind):
        return kind(*values)
    made = object.__new__(kind)
    for name, value in zip(fields_of(kind) or (), values, strict=True):
        object.__setattr__(made, name, value)
    return made
