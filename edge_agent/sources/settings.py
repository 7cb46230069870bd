"""A source in agent.toml: the table `[[sources]]`."""

from typing import Annotated, Any

import msgspec

from edge_agent.sources.json_path import parse_path
from edge_agent.sources.readings import ReadingForm
from fleet_protocol.configuration import Name


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source of readings, besides the sample socket (docs/sources.md)."""

    kind: Annotated[str, msgspec.Meta(min_length=1)]
    """What brings them: `mqtt`, `folder`, or the name of an installed plug-in."""
    task: Name
    """The task that they are samples of, one of `[[tasks]]`."""
    inputs: list[str] = []
    """Where the inputs stand in a reading, in the order that the task takes them: `["$.temperature", "$.humidity"]`. A
    list there gives all its values. Left out: readings have the form of samples."""
    label: str | None = None
    """Where the label stands in a reading."""
    words: dict[str, float] = {}
    """Numbers of texts: `{ ON = 1, OFF = 0 }`."""
    settings: dict[str, Any] = {}  # msgspec would ask how to decode an `object`
    """What this kind of source asks for. Paths in it are absolute."""

    def __post_init__(self) -> None:
        """Refuse a path that is none; raises ValueError."""
        self.form  # noqa: B018 - it checks them

    @property
    def form(self) -> ReadingForm:
        """How its readings become samples."""
        inputs = tuple(parse_path(path) for path in self.inputs)
        return ReadingForm(self.task, inputs, parse_path(self.label) if self.label else None, self.words)
