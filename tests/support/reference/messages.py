"""The reference of messages, made from the table of payload kinds and the structs of their payloads."""

from collections.abc import Iterable, Iterator, Mapping
from enum import EnumType
from typing import Any

import msgspec
from msgspec.inspect import type_info

from fleet_protocol.kinds import FROM_COORDINATOR, KINDS, PayloadKind
from tests.support.reference.words import MADE_BY, flat, limits, rows

ABOUT = (
    "Every kind of message, from the code that reads and writes it. [The wire format](wire-format.md) says what an"
    " envelope is, what the topics are, and what numbers mean. A payload is a CBOR array of these fields in this order;"
    " last fields that have their defaults are left out. Of each message the whole, signed, is bounded."
)


def document(kinds: Iterable[PayloadKind] = tuple(KINDS.values())) -> str:
    """The whole page: an overview by number, then the fields of each kind that is not another's encrypted form."""
    kinds = sorted(kinds, key=lambda kind: kind.number)
    overview = rows(("kind", "name", "from", "topic", "bytes at most", "journalled"), map(_line, kinds))
    parts = [f"# Reference of messages\n\n{MADE_BY}\n\n{ABOUT}\n\n{overview}"]
    described: dict[type, str] = {}
    for kind in kinds:
        if kind.content is None:
            parts.append(f"## {kind.number} {kind.name}\n\n{_described(kind.payload, described, kind.name)}")
            parts += [
                f"### `{shape.__name__}`\n\n{_described(shape, described, kind.name)}"
                for shape in inner_shapes(kind.payload)
                if shape not in described
            ]
    return "\n".join(parts)


def inner_shapes(shape: type) -> Iterator[type]:
    """The structs that a payload's fields hold, each before those inside it; one may come several times."""
    for field in type_info(shape).fields:  # type: ignore[attr-defined] # of a struct
        for found in _structs(field.type):
            yield found
            yield from inner_shapes(found)


PLAIN: Mapping[type, str] = {
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.FloatType: "float",
    msgspec.inspect.IntType: "integer",
    msgspec.inspect.NoneType: "null",
}


def value_of(found: Any) -> str:
    """What may stand in a field."""
    match found:
        case msgspec.inspect.Metadata():
            words = value_of(found.type)
        case msgspec.inspect.UnionType():
            words = " or ".join(value_of(each) for each in found.types)
        case msgspec.inspect.LiteralType():
            words = ", ".join(f'`"{value}"`' for value in found.values)
        case msgspec.inspect.EnumType():
            words = _enumerated(found.cls)
        case msgspec.inspect.StructType():
            words = f"array: `{found.cls.__name__}`"
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            words = f"array{_length(found)} of: {value_of(found.item_type)}"
        case msgspec.inspect.TupleType():
            words = f"array of: {'; '.join(map(value_of, found.item_types))}"
        case msgspec.inspect.BytesType():
            words = f"bytes{_length(found)}"
        case msgspec.inspect.StrType():
            words = f"text: `{found.pattern}`" if found.pattern else f"text{_length(found)}"
        case msgspec.inspect.FloatType() | msgspec.inspect.IntType():
            words = PLAIN[type(found)] + limits(found)
        case _:
            words = PLAIN[type(found)]
    return words


def _line(kind: PayloadKind) -> tuple[str, ...]:
    sender = "coordinator" if kind.leaf in FROM_COORDINATOR else "device"
    return (
        str(kind.number),
        kind.name,
        sender,
        f"`{kind.leaf}`",
        f"{kind.max_bytes:,}",
        "yes" if kind.journalled else "",
    )


def _described(shape: type, described: dict[type, str], name: str) -> str:
    described.setdefault(shape, name)
    fields = [
        (f"`{field.name}`", value_of(field.type), _default(field))
        for field in type_info(shape).fields  # type: ignore[attr-defined] # of a struct
    ]
    words = flat(shape.__doc__ or "")
    return f"{words}\n\n{rows(('field', 'what', 'default'), fields)}" if fields else f"{words}\n"


def _default(field: Any) -> str:
    if field.default is msgspec.NODEFAULT:
        return "" if field.default_factory is msgspec.NODEFAULT else f"`{field.default_factory()!r}`"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def _structs(found: Any) -> Iterator[type]:
    match found:
        case msgspec.inspect.StructType():
            yield found.cls
        case msgspec.inspect.Metadata():
            yield from _structs(found.type)
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            yield from _structs(found.item_type)
        case msgspec.inspect.UnionType():
            for each in found.types:
                yield from _structs(each)
        case _:
            return


def _enumerated(shape: EnumType) -> str:
    return ", ".join(f"`{member.value!r}`".replace("'", '"') for member in shape)  # type: ignore[var-annotated]


def _length(found: Any) -> str:
    least, most = getattr(found, "min_length", None), getattr(found, "max_length", None)
    if least == most:
        return f" ({least})" if least is not None else ""
    return f" ({least or 0:,} to {most:,})" if most is not None else f" (at least {least:,})"
