"""The references of configuration files, made from the structs that read them.

A key's words are the docstring below its field, a table's are the docstring of its struct.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.inspect import type_info

from broker_coordinator.configuration import CoordinatorConfiguration
from edge_agent.configuration import AgentConfiguration
from edge_agent.profiles import Limits, Profile
from fleet_protocol.aggregation_plan import USED_BY, AggregationPlan
from session_relay.helper.configuration import HelperConfiguration
from tests.support.reference.words import MADE_BY, flat, limits, rows
from workbench.export.recipe.task_file import TaskFile
from workbench.fleet_description import FleetFile


@dataclass(frozen=True, slots=True)
class File:
    """A configuration file: its name, what to say first, and the struct that reads it."""

    name: str
    words: str
    shape: type[msgspec.Struct]


REFERENCES: Mapping[str, tuple[str, list[File]]] = {
    "task-reference.md": (
        "Reference of `task.toml`",
        [
            File(
                "task.toml",
                "Stands beside `model.py` in the folder of a recipe; `edgeflock export` makes a bundle of both."
                " [models/digits](../models/digits/README.md) is one to copy.",
                TaskFile,
            )
        ],
    ),
    "configuration-reference.md": (
        "Reference of the configuration files",
        [
            File("agent.toml", "Read by `edge-agent`; systemd/agent.toml is one to copy.", AgentConfiguration),
            File(
                "helper.toml",
                "Read by `edgeflock-helper`; systemd/helper.toml is one to copy. A helper is a device without samples,"
                " so the keys are those of agent.toml, and what follows. Its `sample_socket` answers `edgeflock-helper"
                " status`.",
                HelperConfiguration,
            ),
            File(
                "coordinator.toml",
                "Read by `broker-coordinator`; systemd/coordinator.toml is one to copy.",
                CoordinatorConfiguration,
            ),
            File(
                "A profile",
                "The files in firmware_profiles/, and your own (docs/profiles.md).",
                Profile,
            ),
            File(
                "fleet.toml",
                "Read by `edgeflock simulate --docker` (docs/fleet-in-docker.md) and"
                " `edgeflock flash` (docs/flash.md).",
                FleetFile,
            ),
            File("site.toml", "Beside agent.toml; may be missing (docs/profiles.md).", Limits),
        ],
    ),
}


def document(title: str, files: list[File]) -> str:
    """A whole document; a table that two files share is written out once."""
    several = len(files) > 1
    level = "###" if several else "##"
    parts = [f"# {title}\n\n{MADE_BY}\n\n{ABOUT}\n"]
    described: dict[tuple[str, type], str] = {}
    for file in files:
        parts.append(f"## {file.name}\n\n{file.words}\n" if several else f"{file.words}\n")
        for path, shape in tables(file.shape, ""):
            before = described.setdefault((path, shape), file.name)
            words = table(shape) if before == file.name else f"As in {before}.\n"
            parts.append(f"{level} `{path}`\n\n{words}" if path else words)
    return "\n".join(parts)


ABOUT = (
    "TOML; a key that isn't listed is refused. A key without a default has to be given, and so has its table unless the"
    " whole table is left out. Names are 1 to 48 characters of `a-z`, `0-9`, `-` and `_`."
)


def tables(shape: type, path: str) -> Iterator[tuple[str, type]]:
    """Every struct inside `shape`, itself first, with the heading that it has in TOML."""
    yield path, shape
    for field in type_info(shape).fields:
        inner, heading = _table_of(field.type)
        if inner is not None:
            name = f"{path.strip('[]')}.{field.encode_name}".lstrip(".")
            yield from tables(inner, heading.format(name))


def table(shape: type) -> str:
    """A struct's words, and a row for each of its keys."""
    words = words_of(shape)
    cells = [
        (
            f"`{field.encode_name}`",
            value_of(field.type),
            default_of(field),
            words[field.name] + _only_for(shape, field.name),
        )
        for field in type_info(shape).fields
        if _table_of(field.type)[0] is None
    ]
    said = flat(shape.__doc__ or "")
    return f"{said}\n\n{rows(('key', 'value', 'default', 'meaning'), cells)}" if cells else f"{said}\n"


def words_of(shape: type) -> Mapping[str, str]:
    """The docstring below each field of a struct, or of one that it extends; empty where there is none."""
    base = shape.__base__
    found = {} if base in (None, msgspec.Struct) else dict(words_of(base))
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(shape))).body
    assert isinstance(body, ast.ClassDef)
    for node, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            has_words = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found[node.target.id] = flat(str(following.value.value)) if has_words else ""
    return found


PLAIN: Mapping[type, str] = {
    msgspec.inspect.BoolType: "`true`, `false`",
    msgspec.inspect.CustomType: "path",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.IntType: "integer",
}


def value_of(found: Any) -> str:
    """What may stand behind a key."""
    match found:
        case msgspec.inspect.Metadata():
            words = (found.extra_json_schema or {}).get("title") or value_of(found.type)
        case msgspec.inspect.UnionType():
            words = " or ".join(value_of(each) for each in found.types if each != msgspec.inspect.NoneType())
        case msgspec.inspect.LiteralType():
            words = ", ".join(f'`"{value}"`' for value in found.values)
        case msgspec.inspect.StrType():
            words = "name" if found.pattern else "text"
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            words = f"list of: {value_of(found.item_type)}"
        case msgspec.inspect.DictType():
            words = "table"
        case _:
            words = PLAIN[type(found)] + limits(found)
    return words


def default_of(field: Any) -> str:
    """A key's default, which JSON writes as TOML does; empty where there is none, a dash where the key is left out."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return ""
    return "-" if value is None else f"`{json.dumps(value)}`"


def _only_for(shape: type, name: str) -> str:
    if shape is not AggregationPlan or name not in USED_BY:
        return ""
    other, values = USED_BY[name]
    return f" Only with `{other}` {', '.join(f'`{value}`' for value in values)}."


def _table_of(found: Any) -> tuple[type | None, str]:
    """The struct of a table, if it is one, and how a table of that name is headed."""
    match found:
        case msgspec.inspect.Metadata():
            return _table_of(found.type)
        case msgspec.inspect.StructType():
            return found.cls, "[{}]"
        case msgspec.inspect.ListType():
            return _table_of(found.item_type)[0], "[[{}]]"
        case msgspec.inspect.DictType():
            return _table_of(found.value_type)[0], "[{}.NAME]"
        case msgspec.inspect.UnionType():
            return next((each for each in map(_table_of, found.types) if each[0]), (None, ""))
        case _:
            return None, ""
