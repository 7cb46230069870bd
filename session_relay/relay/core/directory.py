"""Who may use the relay, and for what: as the coordinator's database has it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet_protocol.keys import VerifyKey


@dataclass(frozen=True, slots=True)
class ServedTask:
    """A task as it is published now: `bundle` is the SHA-256 of its `task.json`, `cuts` the names of its cuts, none
    where it has no `split`. A session may begin at versions from `oldest_version` on, unless it `is_paused`.
    """

    bundle: bytes
    generation: int
    oldest_version: int
    cuts: frozenset[str]
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Directory:
    """Approved devices by name, which of them are allowed as helpers, and the tasks."""

    devices: Mapping[str, VerifyKey] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()
    tasks: Mapping[str, ServedTask] = field(default_factory=dict)
