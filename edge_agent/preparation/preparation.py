"""One series of readings, and the samples that it makes. Pure: times come in as arguments.

The agent's sources, predictions and the workbench all prepare here, so that a sample is the same wherever it is made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_agent.preparation.labels import Newest, samples_named_by, samples_with
from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.preparation.scales import SETTLED_READINGS, Moments, scaled_by_ranges, standardised
from edge_agent.preparation.timeline import Timeline
from edge_agent.preparation.values import Reading, inputs_of, number_of
from edge_agent.preparation.waiting import Labelled, WaitingSample, WaitingSamples
from edge_agent.preparation.window import Window
from fleet_protocol.reading_plan import LabelPlan, ReadingField, ReadingPlan


@dataclass(frozen=True, slots=True)
class Moment:
    """When a reading was taken, in seconds since 1970; `is_arrival` where it came without a time of its own."""

    at: float
    is_arrival: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a reading has made: `inputs` to predict for, float32 in C order, None while the window fills or after a
    message that is a label alone; and samples that have their labels now.
    """

    inputs: list[float] | None
    samples: list[Labelled]


class PreparationState(msgspec.Struct, frozen=True):
    """What a series keeps over a restart; only with the plan that it was made by. `named_by` is the account of the
    program that has named it.
    """

    plan: ReadingPlan
    timeline: Timeline
    rows: list[list[float]]
    moments: list[Moments]
    waiting: list[WaitingSample]
    unlabelled: int
    named_by: str = ""


class SeriesStatus(msgspec.Struct, frozen=True):
    """How far a series is: readings in the window of so many, samples that wait for a label, and those without one."""

    readings: int
    window: int
    waiting_for_label: int
    unlabelled: int


class Preparation:
    """Takes the readings of one series."""

    def __init__(self, plan: ReadingPlan, state: PreparationState | None = None) -> None:
        """A `state` of another plan is of no use, and not used."""
        known = state if state is not None and state.plan == plan else None
        self.plan = plan
        self._fields = plan.input_fields
        self._field_of_value = [field for field in self._fields.values() for _ in range(field.width)]
        self._timeline = known.timeline if known else Timeline()
        self._window = Window(plan.window, known.rows if known else ())
        self._moments = known.moments if known else [Moments() for _ in self._field_of_value]
        self._waiting = WaitingSamples(known.waiting, known.unlabelled) if known else WaitingSamples()

    @property
    def state(self) -> PreparationState:
        """For a restart."""
        rows = [list(row) for row in self._window.rows]
        waiting = self._waiting
        return PreparationState(self.plan, self._timeline, rows, self._moments, waiting.samples, waiting.unlabelled)

    @property
    def status(self) -> SeriesStatus:
        """For people."""
        window = self._window
        return SeriesStatus(len(window.rows), window.length, len(self._waiting), self._waiting.unlabelled)

    def take(self, reading: Reading, moment: Moment, identifier: str = "") -> Prepared:
        """Take a reading in, or a message that is a label of earlier ones.

        Raises:
            ReadingRefusedError: it is neither, or comes at a wrong time; the series stays as it is, but for a clock
                that was set back, with which it begins again.
        """
        plan = self.plan.label
        label = self._label(plan, reading) if plan and reading.get(plan.field) is not None else None
        is_alone = all(reading.get(name) is None for name in self._fields)
        if plan and plan.found == "by_id" and not identifier and (label is None or is_alone):
            raise ReadingRefusedError(
                "field_missing", "id is missing, by which a label names its reading; publish both"
            )
        if plan and plan.found in _IN_MESSAGES and label is not None and is_alone:
            return Prepared(None, samples_named_by(plan, self._waiting, label, moment.at, identifier))
        inputs = self._inputs(reading, moment)
        return Prepared(inputs, samples_with(Newest(moment.at, inputs, label, identifier), plan, self._waiting))

    def inputs_with(self, reading: Reading, moment: Moment) -> list[float]:
        """The inputs to predict for if this reading were the newest one; the series stays as it is.

        Raises:
            ReadingRefusedError: it does not fit, or the window is not full with it.
        """
        row = self._scaled(self._values(reading))
        window, newest = self._window.copy(), self._timeline.newest
        passed = moment.at - newest if newest is not None else 0.0
        if passed < 0:
            raise ReadingRefusedError("late", f"it is {-passed:.3f} s older than the device's newest reading")
        window.put(row, passed)
        return self.require(window.values if self._is_settled else None, len(window.rows))

    def require(self, inputs: list[float] | None, readings: int | None = None) -> list[float]:
        """What there is to predict for; `readings` in the window, those that are there now where it is None.

        Raises:
            ReadingRefusedError: `window_not_full`.
        """
        if inputs is not None:
            return inputs
        if not self._is_settled:
            counted = self._moments[0].count
            words = f"the device has measured {counted} of {SETTLED_READINGS} readings for its scale"
        else:
            found = len(self._window.rows) if readings is None else readings
            words = f"the window has {found} of {self._window.length} readings"
        raise ReadingRefusedError("window_not_full", f"{words}; wait for the others")

    def begun_anew(self) -> "Preparation":
        """Another series of the same scale, without readings, to ask about: it looks for no labels."""
        plan = msgspec.structs.replace(self.plan, inputs=list(self._fields), label=None)
        moments = [msgspec.structs.replace(each) for each in self._moments]
        return Preparation(plan, PreparationState(plan, Timeline(), [], moments, [], 0))

    def _inputs(self, reading: Reading, moment: Moment) -> list[float] | None:
        """What the model takes with this reading in the window; None while that is not full."""
        values = self._values(reading)
        passed = self._check_time(moment)
        self._timeline.move(moment.at)
        if self.plan.scaling == "device":
            for moments, value in zip(self._moments, values, strict=True):
                moments.add(value)
        self._window.push(self._scaled(values), passed)
        return self._window.values if self._is_settled else None

    def _check_time(self, moment: Moment) -> float:
        """The seconds since the reading before."""
        try:
            self._timeline.check(moment.at, is_arrival=moment.is_arrival)
        except ReadingRefusedError as refused:
            if refused.reason == "time_backwards":
                self._window.clear()
                self._waiting.clear()
            raise
        newest = self._timeline.newest
        if newest is None:
            return 0.0
        self._window.check(moment.at - newest)
        return moment.at - newest

    def _values(self, reading: Reading) -> list[float]:
        return [value for name, field in self._fields.items() for value in inputs_of(name, field, reading)]

    def _scaled(self, values: Sequence[float]) -> list[float]:
        return _SCALES[self.plan.scaling](values, self._field_of_value, self._moments)

    @property
    def _is_settled(self) -> bool:
        return self.plan.scaling != "device" or self._moments[0].count >= SETTLED_READINGS

    def _label(self, plan: LabelPlan, reading: Reading) -> float:
        return number_of(plan.field, self.plan.fields[plan.field], reading)


_IN_MESSAGES: Final = ("by_id", "by_time")
"""Where a label may come in a message of its own."""

_SCALES: Final[Mapping[str, Callable[[Sequence[float], Sequence[ReadingField], Sequence[Moments]], list[float]]]] = {
    "ranges": lambda values, fields, _: scaled_by_ranges(values, fields),
    "device": standardised,
    "off": lambda values, *_: list(values),
}
