"""From a JSON document to a reading whose values have the names of the task's fields. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edge_agent.preparation.refusal import ReadingRefusedError, shown
from edge_agent.sources.json_path import FieldMissingError, JsonPath
from fleet_protocol.reading_plan import RESERVED

MAX_IDENTIFIER_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class NamedReading:
    """Values by the names of their fields; `time` as it stands in the document, None where the reading has none."""

    values: Mapping[str, object]
    time: object
    identifier: str


@dataclass(frozen=True, slots=True)
class NamedForm:
    """Where the values of fields stand in a source's documents; without `fields`, each is a member of its own name.

    `units` are texts that have to stand at these paths. Readings of one `series` follow one another.
    """

    fields: Mapping[str, JsonPath] = field(default_factory=dict)
    time: JsonPath | None = None
    identifier: JsonPath | None = None
    units: tuple[tuple[JsonPath, str], ...] = ()
    series: str = ""

    def has_values(self, document: object) -> bool:
        """Whether one of the `fields` stands where it is said to."""
        return any(_at(path, document) is not None for path in self.fields.values())

    def reading(self, document: object, words: Mapping[str, float]) -> NamedReading:
        """The reading in a document; `words` give the numbers of texts.

        Raises:
            ReadingRefusedError: it has no members, another unit, or too long an id.
        """
        if not self.fields and not isinstance(document, dict):
            remedy = "name where each value stands under fields"
            raise ReadingRefusedError("not_a_sample", f"{shown(document)} has no members; {remedy}")
        for path, unit in self.units:
            if (found := _at(path, document)) != unit:
                raise ReadingRefusedError("wrong_unit", f"{path.text} is {shown(found)}, not {unit!r}: set it back")
        values = {name: _at(path, document) for name, path in self.fields.items()} or document
        assert isinstance(values, dict)  # noqa: S101 - asked above
        members = document if isinstance(document, dict) else {}
        time, identifier = (
            _at(path, document) if path else members.get(name)
            for path, name in zip((self.time, self.identifier), RESERVED, strict=True)
        )
        numbers = {name: _number_of(value, words) for name, value in values.items() if name not in RESERVED}
        return NamedReading(numbers, time, _identifier_of(identifier))


BY_NAME: Final = NamedForm()
"""Each value is a member of its field's own name."""


def _at(path: JsonPath, document: object) -> object:
    """None where there is nothing: which fields a reading has to have is asked elsewhere."""
    try:
        return path.of(document)
    except FieldMissingError:
        return None


def _identifier_of(given: object) -> str:
    """Empty where there is none."""
    if given is not None and not isinstance(given, str | int | float):
        raise ReadingRefusedError("not_a_sample", f"id is {shown(given)}; publish a text or a number")
    text = "" if given is None else str(given)
    if len(text) > MAX_IDENTIFIER_CHARACTERS:
        words = f"id has {len(text)} characters; at most {MAX_IDENTIFIER_CHARACTERS} are taken"
        raise ReadingRefusedError("not_a_sample", words)
    return text


def _number_of(value: object, words: Mapping[str, float]) -> object:
    return words[value] if isinstance(value, str) and value in words else value
