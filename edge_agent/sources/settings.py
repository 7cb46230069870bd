"""A source in agent.toml: the table `[[sources]]`."""

from typing import Annotated, Any

import msgspec

from edge_agent.sources.json_path import JsonPath, parse_path
from edge_agent.sources.named_form import NamedForm
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.series import SeriesName
from fleet_protocol.configuration import Name, Text
from fleet_protocol.sample_schema import FieldName

MAX_PATH_CHARACTERS = 1000
"""Of a path to a value."""
MAX_FLOAT32 = 3.4e38
"""Samples are float32."""

PathText = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^\$[^\x00-\x1f\x7f]{{0,{MAX_PATH_CHARACTERS}}}\Z",
        description="a path to one value; write it as $.name, $['a name'] or $.list[0]",
        title="text",
    ),
]
Number = Annotated[float, msgspec.Meta(ge=-MAX_FLOAT32, le=MAX_FLOAT32)]


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source of readings, besides the sample socket (docs/sources.md)."""

    kind: Text
    """What brings them: `mqtt`, `folder`, or the name of an installed plug-in."""
    task: Name
    """The task that they are samples of, one of `[[tasks]]`."""
    inputs: list[PathText] = []
    """Where the inputs stand in a reading, in the order that the task takes them: `["$.temperature", "$.humidity"]`. A
    list there gives all its values. Left out: readings have the form of samples."""
    label: PathText | None = None
    """Where the label stands in a reading."""
    words: dict[str, Number] = {}
    """Numbers of texts: `{ ON = 1, OFF = 0 }`."""
    fields: dict[FieldName, PathText] = {}
    """Where the value of each field of the task stands, where the task takes named readings
    (docs/readings.md): `{ temperature = "$.SI7021.Temperature" }`. Left out: each is a member of its own name."""
    time: PathText | None = None
    """Where a named reading says when it was taken. Left out: the member `time`, else it is when it came."""
    id: PathText | None = None
    """Where a named reading says what a later label names it by. Left out: the member `id`."""
    units: dict[PathText, Text] = {}
    """Texts that have to stand at these places, so that a changed unit is noticed: `{ "$.TempUnit" = "C" }`."""
    series: SeriesName = ""
    """Named readings of sources with the same `series` follow one another: give each room its own."""
    budget: Name | None = None
    """The budget that its samples have, one of `budgets` of `[privacy]` (docs/privacy.md)."""
    settings: dict[str, Any] = {}  # msgspec would ask how to decode an `object`
    """What this kind of source asks for. Paths in it are absolute."""

    def __post_init__(self) -> None:
        """Refuse a path that is none; raises ValueError."""
        self.form  # noqa: B018 - it checks them
        if self.fields and (self.inputs or self.label):
            raise ValueError("fields are for named readings, inputs and label for others; leave one of them out")

    @property
    def has_own_form(self) -> bool:
        """Whether it says where values stand."""
        return self.form.has_paths

    @property
    def form(self) -> ReadingForm:
        """How its readings become samples."""
        inputs = tuple(parse_path(path) for path in self.inputs)
        named = NamedForm(
            {name: parse_path(path) for name, path in self.fields.items()},
            _path(self.time),
            _path(self.id),
            tuple((parse_path(path), unit) for path, unit in self.units.items()),
            self.series,
        )
        return ReadingForm(self.task, inputs, _path(self.label), self.words, named, self.budget or "")


def _path(text: str | None) -> JsonPath | None:
    return parse_path(text) if text else None
