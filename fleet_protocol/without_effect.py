"""Settings that another one makes meaningless: refused unless they are as where nobody writes them. Pure."""

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

import msgspec

from fleet_protocol.errors import ConfigurationError

UsedBy: TypeAlias = Mapping[str, tuple[str, tuple[object, ...]]]
"""Setting to another one of its table, and the values of that one with which it means something."""


Plan = TypeVar("Plan", bound=msgspec.Struct)


def with_used(plan: Plan, used_by: UsedBy) -> Plan:
    """The plan whose settings without effect, once another one was changed, are as where nobody writes them."""
    unused = [setting for setting, (other, users) in used_by.items() if getattr(plan, other) not in users]
    return msgspec.structs.replace(plan, **{each: _left_out(type(plan), each) for each in unused})


def check_used(plan: msgspec.Struct, used_by: UsedBy, table: str, name: str) -> None:
    """Raise `ConfigurationError` if another setting of `plan`, the table, leaves one without effect; `name` is the
    file.
    """
    for setting, (other, users) in used_by.items():
        check_setting(plan, setting, (other, getattr(plan, other)), users, f"{name}: {table}")


def check_setting(
    plan: msgspec.Struct, setting: str, chosen: tuple[str, object], users: tuple[object, ...], place: str
) -> None:
    """Raise `ConfigurationError` if what was `chosen`, name and value of another setting, is none of the `users`, and
    the setting of `plan` is not as usual; `place` is its file and table.
    """
    other, value = chosen
    given = getattr(plan, setting)
    if value not in users and given != _left_out(type(plan), setting):
        raise ConfigurationError(
            f"{place}.{setting} is {_shown(given)}, but {other} {_shown(value)} does not use it; leave it out, or set"
            f" {other} to {' or '.join(map(_shown, users))}"
        )


def _left_out(table: type[msgspec.Struct], setting: str) -> object:
    (field,) = (each for each in msgspec.structs.fields(table) if each.name == setting)
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _shown(value: object) -> str:
    """As task.toml has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
