"""From a reading, any JSON document that a source brings, to a sample of its task. Pure."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from edge_agent.preparation.refusal import ReadingRefusedError, shown
from edge_agent.sources.json_path import JsonPath
from edge_agent.sources.named_form import BY_NAME, NamedForm
from fleet_protocol.document_errors import NOT_JSON
from fleet_protocol.sample_line import Sample, read_sample

MAX_TEXT_CHARACTERS = 64
"""Of a payload that is a bare word, such as ON."""


@dataclass(frozen=True, slots=True)
class ReadingForm:
    """How readings of one source become samples of `task`.

    `inputs` and `label` say where the values stand; without `inputs`, a reading has the form of a sample, or, where the
    task takes named readings, that of `named`. `words` give the numbers of texts, such as 1 for "ON". Its samples have
    this `budget`; without one, that which the reading names.
    """

    task: str
    inputs: tuple[JsonPath, ...] = ()
    label: JsonPath | None = None
    words: Mapping[str, float] = field(default_factory=dict)
    named: NamedForm = BY_NAME
    budget: str = ""

    @property
    def has_paths(self) -> bool:
        """Whether it says where values stand."""
        return bool(self.inputs or self.named.fields)

    @property
    def names(self) -> frozenset[str]:
        """The members of a document that its paths begin with; empty where it has none."""
        named = self.named
        paths = (*self.inputs, self.label, *named.fields.values(), named.time, named.identifier)
        units = (path for path, _ in named.units)
        firsts = (path.steps[0] for path in (*paths, *units) if path is not None and path.steps)
        return frozenset(first for first in firsts if isinstance(first, str))

    def decode(self, payload: bytes) -> object:
        """The document in a message. A bare word that `words` has is taken, as many programs publish one.

        Raises:
            ReadingRefusedError: it is no document.
        """
        try:
            return msgspec.json.decode(payload)
        except NOT_JSON as error:
            text = payload[:MAX_TEXT_CHARACTERS].decode(errors="replace").strip()
            if text in self.words:
                return text
            remedy = "publish JSON, or give its number under words"
            raise ReadingRefusedError("not_json", f"{shown(text)} is not JSON: {error}; {remedy}") from None

    def sample(self, document: object) -> Sample:
        """The sample that a reading holds; whether it fits its task is asked elsewhere.

        Raises:
            ReadingRefusedError: a value is missing, or is no number.
        """
        if not self.inputs:
            return self._as_given(document)
        inputs = [value for path in self.inputs for value in self._numbers(path, document)]
        label = list(self._numbers(self.label, document)) if self.label else []
        return Sample(self.task, inputs, label[0] if len(label) == 1 else label or None, self.budget)

    def _as_given(self, document: object) -> Sample:
        if not isinstance(document, dict):
            words = f"{shown(document)} has no members; name those to take under inputs"
            raise ReadingRefusedError("not_a_sample", words)
        try:
            sample = read_sample(msgspec.json.encode({"task": self.task, **document}))
        except ValueError as error:
            raise ReadingRefusedError("not_a_sample", str(error)) from error
        if sample.task != self.task:
            raise ReadingRefusedError(
                "not_a_sample", f"it is for task {sample.task!r}; this source is for {self.task!r}"
            )
        return msgspec.structs.replace(sample, budget=self.budget) if self.budget else sample

    def _numbers(self, path: JsonPath, document: object) -> Iterator[float]:
        try:
            found = path.of(document)
        except ValueError as error:
            raise ReadingRefusedError("field_missing", f"{error}; correct the path, or publish it") from error
        for value in found if isinstance(found, list) else [found]:
            yield self._number(path, value)

    def _number(self, path: JsonPath, value: object) -> float:
        """Null is a missing value, NaN, which a task may take."""
        if value is None:
            return math.nan
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        if isinstance(value, int | float):
            return float(value) if abs(value) <= sys.float_info.max else math.inf
        remedy = "publish a number, with a decimal point, or give the number of this text under words"
        raise ReadingRefusedError("not_a_number", f"{path.text} is {shown(value)}; {remedy}")
