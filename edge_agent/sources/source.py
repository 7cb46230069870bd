"""What a source is: settings, and a coroutine that brings readings for as long as it runs. Each is a plug-in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from edge_agent.preparation.refusal import ReadingRefusedError, Reason
from edge_agent.sources.prediction_command import CannotPredictError, Predicted
from edge_agent.sources.reading_receiver import ReadingReceiver
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.tally import SourceTally
from fleet_host.configuration_file import decode_path
from fleet_protocol.document_errors import explain
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.reading_plan import RESERVED
from fleet_protocol.sample_line import Sample
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class SourceHost:
    """The agent, as a source sees it.

    `predict` takes a reading as JSON in a form, `predict_sample` inputs that are prepared; both raise
    `CannotPredictError`. `status` is what the agent says of itself, as JSON.
    """

    fleet: str
    device: str
    predict: Callable[[ReadingForm, bytes], Awaitable[Predicted]]
    predict_sample: Callable[[Sample], Awaitable[Predicted]]
    status: Callable[[], bytes]


Question = Callable[[], Awaitable[Predicted]]
"""Asks the model about one reading."""

Settings = TypeVar("Settings", bound=msgspec.Struct)


class ReadingIntake:
    """Where a source hands over its readings. Nothing that a reading holds raises: it is counted in the `tally`."""

    def __init__(self, form: ReadingForm, receiver: ReadingReceiver, tally: SourceTally, host: SourceHost) -> None:
        self.form = form
        self.tally = tally
        self._receiver = receiver
        self.host = host

    @property
    def description(self) -> TaskDescription | None:
        """The task's description; None until its bundle is fetched."""
        return self._receiver.intake.describe(self.form.task)

    @property
    def takes_names(self) -> bool:
        """Whether its readings hold values by the names of fields or columns."""
        return bool(self.form.inputs) or self._receiver.is_named(self.form, {})

    @property
    def names(self) -> frozenset[str]:
        """The members of its readings that count: those of its paths, else the task's fields; empty for all."""
        if self.form.has_paths or (description := self.description) is None or description.readings is None:
            return self.form.names
        return frozenset((*description.readings.fields, *RESERVED))

    def take_payload(self, payload: bytes) -> Reason | None:
        """Take a reading as JSON; returns why it was refused, None where it was taken."""
        try:
            return self.take_document(self.form.decode(payload))
        except ReadingRefusedError as error:
            return self.refuse(error.reason, str(error))

    def take_document(self, document: object) -> Reason | None:
        """The same for one that is decoded: dicts, lists, texts and numbers."""
        try:
            self._receiver.take(self.form, document)
        except ReadingRefusedError as error:
            return self.refuse(error.reason, str(error))
        self.tally.take()
        return None

    def take_and_ask(self, payload: bytes, *, learn: bool) -> Question | None:
        """Take a reading as JSON, and give what to ask the model about it; without `learn` it becomes no sample. None
        where it is counted, or where a window of readings is not full.
        """
        if not self.takes_names or self.form.inputs:
            if learn:
                self.take_payload(payload)
            return partial(self.host.predict, self.form, payload)
        try:
            asked = self._receiver.take(self.form, self.form.decode(payload), learn=learn)
        except ReadingRefusedError as error:
            self.refuse(error.reason, str(error))
            return None
        self.tally.take()
        return partial(self.host.predict_sample, asked) if asked else None

    async def answer(self, question: Question) -> bytes | None:
        """What the model says, `Predicted` as JSON; None where it is counted under `not_predicted`."""
        try:
            return msgspec.json.encode(await question())
        except CannotPredictError as error:
            self.refuse("not_predicted", str(error))
            return None

    def refuse(self, reason: Reason, words: str) -> Reason:
        """Count a reading that never became a document."""
        self.tally.refuse(reason, words)
        return reason


RunSource = Callable[[ReadingIntake], Awaitable[None]]
"""Brings readings until cancelled. It may raise whatever it likes: that is said, and it is run again after a pause."""


class SourceKind(Protocol):
    """A kind of source, whatever its settings are."""

    def with_settings(self, values: Mapping[str, object], where: str) -> RunSource:
        """The source that these settings of agent.toml describe; `where` they stand is for errors.

        Raises:
            ConfigurationError: naming the key, and what was expected there.
        """


@dataclass(frozen=True, slots=True)
class SourcePlugin(Generic[Settings]):
    """One kind of source: the struct that reads its `settings` in agent.toml, and what runs it (`RunSource`)."""

    settings: type[Settings]
    run: Callable[[Settings, ReadingIntake], Awaitable[None]]

    def with_settings(self, values: Mapping[str, object], where: str) -> RunSource:
        """As `SourceKind` says."""
        try:
            settings = msgspec.convert(values, self.settings, dec_hook=decode_path)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{where}: {explain(error, self.settings, values)}") from error
        if relative := next((path for path in _paths(settings) if not path.is_absolute()), None):
            raise ConfigurationError(f"{where}: the path {str(relative)!r} is relative; write it from / on")
        return partial(self.run, settings)


def _paths(value: object) -> list[Path]:
    if isinstance(value, Path):
        return [value]
    fields = msgspec.structs.astuple(value) if isinstance(value, msgspec.Struct) else ()
    return [path for each in fields for path in _paths(each)]
