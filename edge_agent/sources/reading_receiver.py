"""The one way from a reading, in whichever form, to the sample store, and to what is asked of the model."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from edge_agent.preparation.preparation import Moment, Preparation, PreparationState, SeriesStatus
from edge_agent.preparation.refusal import IS_DISK_FULL, ReadingRefusedError
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.named_form import NamedForm, NamedReading
from edge_agent.sources.reading_time import seconds_of
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.series import SeriesOfReadings
from fleet_host.log_lines import log_line
from fleet_protocol.sample_line import Sample

OwnSeries = dict[str, Preparation]
"""By task: readings that are asked about one after the other, apart from those of the device."""

logger = logging.getLogger(__name__)


class ReadingReceiver:
    """Takes readings of all sources. `now` gives seconds since 1970; `states` are those of the agent's last run, and
    `taken` is called when they have changed. `own` are the series that agent.toml names.
    """

    def __init__(
        self,
        intake: SampleIntake,
        now: Callable[[], float],
        states: Mapping[str, PreparationState] | None = None,
        own: Iterable[str] = (),
        *,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.intake = intake
        self._taken = taken
        self._now = now
        self._series = SeriesOfReadings(intake.describe, states, own, made_room=_say_lost)

    @property
    def states(self) -> dict[str, PreparationState]:
        """What the series of named readings keep over a restart."""
        return self._series.states

    @property
    def status(self) -> dict[str, SeriesStatus]:
        """How far each series of named readings is."""
        return self._series.status

    def take(self, form: ReadingForm, document: object, *, learn: bool = True, account: str = "") -> Sample | None:
        """Take a reading, and store the samples that it completes unless not to `learn`. Returns what to predict for
        where readings have names and make a window: what the model takes once this reading is in it. `account` is that
        of the program that has sent it.

        Raises:
            ReadingRefusedError: it is none, or a sample could not be stored.
        """
        if not self.is_named(form, document):
            self.store(form.sample(document))
            return None
        reading = form.named.reading(document, form.words)
        series = self._series.of(form.task, form.named.series, account)
        prepared = series.take(reading.values, self._moment(reading), reading.identifier)
        for inputs, label in prepared.samples if learn else ():
            self.store(Sample(form.task, inputs, label, form.budget))
        self._taken()
        return None if prepared.inputs is None else Sample(form.task, prepared.inputs)

    def question(self, form: ReadingForm, document: object, own: OwnSeries | None = None) -> Sample:
        """What to predict for where this reading were the newest one; nothing is stored. A named reading follows those
        that the device has read, or those of its `own` series, which are kept there by task.

        Raises:
            ReadingRefusedError: it is no reading of this form, or makes no full window.
        """
        form = _form_of_question(form, document)
        if not self.is_named(form, document):
            is_sample = isinstance(document, dict) and "inputs" in document
            return replace(form, inputs=() if is_sample else form.inputs, label=None).sample(document)
        reading = form.named.reading(document, form.words)
        series = self._series.of(form.task, form.named.series)
        if own is None:
            return Sample(form.task, series.inputs_with(reading.values, self._moment(reading)))
        empty = series.begun_anew()
        if form.task not in own or own[form.task].plan != empty.plan:
            own[form.task] = empty
        prepared = own[form.task].take(reading.values, self._moment(reading))
        return Sample(form.task, own[form.task].require(prepared.inputs))

    def is_named(self, form: ReadingForm, document: object) -> bool:
        """Whether a document of this form holds values by the names of the task's fields."""
        if form.inputs:
            return False
        if form.named.fields:
            return True
        if isinstance(document, dict) and "inputs" in document:
            return False
        description = self.intake.describe(form.task)
        return isinstance(document, dict) if description is None else description.readings is not None

    def _moment(self, reading: NamedReading) -> Moment:
        if reading.time is None:
            return Moment(self._now(), is_arrival=True)
        return Moment(seconds_of(reading.time))

    def store(self, sample: Sample) -> None:
        """Take one that is whole.

        Raises:
            ReadingRefusedError: it does not fit its task, or could not be stored.
        """
        try:
            self.intake.take(sample)
        except ValueError as error:
            raise ReadingRefusedError("outside_schema", str(error)) from error
        except sqlite3.Error as error:
            logger.error(log_line("sample_not_stored", task=sample.task, error=error))
            raise ReadingRefusedError("not_stored", f"{error}; {IS_DISK_FULL}") from error


def _say_lost(series: str, account: str) -> None:
    remedy = "name fewer series: accounts share what there is room for"
    logger.warning(log_line("series_made_room", series=series, account=account, remedy=remedy))


def _form_of_question(form: ReadingForm, document: object) -> ReadingForm:
    """The source's form; a document that has none of its fields where they are said to be is a sample, or has values
    by the names of the fields.
    """
    named = form.named
    if not named.fields or not isinstance(document, dict) or named.has_values(document):
        return form
    return replace(form, named=NamedForm(series=named.series))
