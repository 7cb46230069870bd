"""Named readings become the samples that the plan says, and one that does not fit has one reason."""

import math
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.preparation.preparation import Moment, Preparation, PreparationState, Prepared
from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.preparation.scales import SETTLED_READINGS
from edge_agent.preparation.waiting import MAX_WAITING_BYTES, MAX_WAITING_SAMPLES
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.reading_plan import LabelPlan, ReadingField, ReadingPlan, WindowPlan
from tests.support.occupancy_by_hand import SlidingWindow
from workbench.recipe_folder import find_recipe

OCCUPANCY = parse_description((find_recipe("occupancy") / "bundle" / DESCRIPTION_FILE).read_bytes()).readings
TEMPERATURE = ReadingField(unit="°C", range=[-40.0, 80.0])
WIDE = ReadingField(range=[-1000.0, 1000.0])
ROOM = {
    "temperature": TEMPERATURE,
    "mode": ReadingField(kind="category", values=["off", "eco", "boost"]),
    "door": ReadingField(kind="boolean"),
}
FIRST = Moment(1.0)
GOOD = {"temperature": 20.0, "mode": "eco", "door": "OFF"}


def plan(window: WindowPlan | None = None, **keys: Any) -> ReadingPlan:
    return ReadingPlan(keys.pop("fields", ROOM), window=window, **keys)


def of_temperature(window: WindowPlan | None = None, **keys: Any) -> ReadingPlan:
    return plan(window, fields={"temperature": WIDE}, scaling="off", **keys)


def take(series: Preparation, at: float, temperature: float, **more: Any) -> Prepared:
    return series.take({"temperature": temperature, **more}, Moment(at))


def reason(series: Preparation, reading: dict[str, Any], moment: Moment = FIRST) -> tuple[str, str]:
    with pytest.raises(ReadingRefusedError) as refused:
        series.take(reading, moment)
    return refused.value.reason, str(refused.value)


@given(
    st.lists(st.floats(0.0, 400.0), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_windows_of_occupancy_are_those_made_by_hand(steps: list[float], random: Any) -> None:
    """Gaps and all; readings that come too soon are left out of both, as the one made by hand has no rule for them."""
    by_hand, series, at, newest = SlidingWindow(), Preparation(OCCUPANCY), 1e9, 0.0
    for step in steps:
        at += step
        if at - newest < 30.0:
            continue
        newest = at
        values = [random.uniform(-20, 60), random.uniform(0, 100), random.uniform(0, 3000), random.uniform(0, 5000)]
        reading = dict(zip(OCCUPANCY.input_fields, values, strict=True))
        assert series.take(reading, Moment(at)).inputs == by_hand.push(at, values)


def test_kinds_of_fields_become_numbers_in_their_order() -> None:
    taken = Preparation(plan(inputs=["door", "mode", "temperature"])).take(GOOD | {"door": True}, Moment(1.0))
    assert taken.inputs == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert plan(scaling="off").input.minimum == -40.0
    assert plan().input.shape == [5]


@pytest.mark.parametrize(
    ("value", "given"), [("3", 3.0), ("0", -0.0), ("0.5", 0.5), ("1234567", 1234567), ("1234567.25", 1234567.25)]
)
def test_number_is_the_category_that_is_written_like_it(value: str, given: float) -> None:
    modes = ReadingField(kind="category", values=["off", value])
    series = Preparation(plan(fields={"mode": modes}))
    assert series.take({"mode": given}, Moment(1.0)).inputs == [0.0, 1.0]


def test_value_that_is_too_deep_to_be_shown_has_a_reason() -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    found, said = reason(Preparation(plan()), GOOD | {"temperature": deep})
    assert (found, said[:40]) == ("not_a_number", "temperature is lists or objects too deep")


def test_usual_range_is_cut_off_and_range_is_refused() -> None:
    light = ReadingField(range=[0.0, 2e5], usual_range=[0.0, 1000.0])
    series = Preparation(plan(fields={"light": light}))
    assert series.take({"light": 90_000}, Moment(1.0)).inputs == [1.0]
    assert reason(series, {"light": -1}, Moment(2.0))[0] == "out_of_range"


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        ({"temperature": None}, "field_missing", "temperature is missing; the reading has door, mode"),
        ({"temperature": "21,5"}, "not_a_number", "temperature is '21,5'; publish a number, with a decimal point"),
        ({"temperature": True}, "not_a_number", "temperature is True"),
        ({"temperature": [1]}, "not_a_number", "temperature is [1]"),
        ({"temperature": math.nan}, "not_finite", "temperature is nan"),
        ({"temperature": -math.inf}, "not_finite", "temperature is -inf"),
        ({"temperature": 81}, "out_of_range", "temperature is 81; from -40 to 80 °C is taken"),
        ({"temperature": 10**400}, "out_of_range", "temperature is 1000"),
        ({"temperature": {"value": 70.7, "unit": "°F"}}, "wrong_unit", "temperature is in '°F'; the task takes °C"),
        ({"mode": 10**400}, "unknown_value", "mode is 1000"),
        ({"mode": {"value": math.inf}}, "unknown_value", "mode is inf"),
        ({"mode": "ECO"}, "unknown_value", "mode is 'ECO'; the task takes off, eco, boost"),
        ({"door": "ajar"}, "unknown_value", "door is 'ajar'; publish true or false"),
        ({"door": 2}, "unknown_value", "door is 2"),
    ],
)
def test_bad_value_has_one_reason_and_leaves_the_series_as_it_was(
    change: dict[str, Any], expected: str, words: str
) -> None:
    series = Preparation(plan())
    reading = {name: value for name, value in (GOOD | change).items() if value is not None}
    found, said = reason(series, reading)
    assert (found, words in said) == (expected, True), said
    assert series.take(GOOD | {"temperature": {"value": 20, "unit": "°C"}}, Moment(1.0)).inputs is not None


def test_times_that_can_not_be_have_one_reason_each() -> None:
    series = Preparation(of_temperature(WindowPlan(2, 60.0)))
    take(series, 1000.0, 20.0)
    assert reason(series, {"temperature": 20.0}, Moment(1000.0))[0] == "duplicate"
    assert reason(series, {"temperature": 20.0}, Moment(940.0))[0] == "late"
    assert reason(series, {"temperature": 20.0}, Moment(1029.0))[0] == "too_soon"
    assert take(series, 1031.0, 21.0).inputs == [20.0, 21.0]


def test_readings_that_overtake_one_another_are_late_and_the_series_goes_on() -> None:
    series = Preparation(of_temperature(WindowPlan(3, 60.0)))
    for at in (60, 180, 240):
        take(series, at, at)
    assert reason(series, {"temperature": 1.0}, Moment(120.0))[0] == "late"
    assert take(series, 300.0, 5.0).inputs == [180.0, 240.0, 5.0]


def test_clock_that_was_set_back_begins_the_series_again_after_three_readings() -> None:
    series = Preparation(of_temperature(WindowPlan(1, 60.0)))
    take(series, 1e9, 20.0)
    found = [reason(series, {"temperature": 20.0}, Moment(at))[0] for at in (60.0, 120.0, 180.0)]
    assert found == ["late", "late", "time_backwards"]
    assert take(series, 240.0, 21.0).inputs == [21.0]


def test_clock_of_the_device_that_was_set_back_begins_the_series_again_at_once() -> None:
    series = Preparation(of_temperature())
    series.take({"temperature": 20.0}, Moment(1e9, is_arrival=True))
    assert reason(series, {"temperature": 20.0}, Moment(60.0, is_arrival=True))[0] == "time_backwards"
    assert series.take({"temperature": 21.0}, Moment(61.0, is_arrival=True)).inputs == [21.0]


def test_two_readings_that_come_in_one_tick_of_the_clock_are_not_duplicates() -> None:
    series = Preparation(of_temperature())
    for temperature in (20.0, 21.0):
        assert series.take({"temperature": temperature}, Moment(5.0, is_arrival=True)).inputs == [temperature]


def test_gap_begins_the_window_again_or_holds_the_reading_before() -> None:
    restarts = Preparation(of_temperature(WindowPlan(4, 60.0)))
    holds = Preparation(of_temperature(WindowPlan(4, 60.0, gap="hold")))
    for series in (restarts, holds):
        for at, value in ((60, 1.0), (120, 2.0), (180, 3.0), (240, 4.0)):
            take(series, at, value)
    assert take(restarts, 420.0, 7.0).inputs is None
    assert take(holds, 420.0, 7.0).inputs == [4.0, 4.0, 4.0, 7.0]
    assert take(holds, 420.0 + 5 * 60, 9.0).inputs is None


def test_label_in_the_reading_makes_a_sample_with_it() -> None:
    fields = {"temperature": TEMPERATURE, "occupied": ReadingField(kind="boolean")}
    series = Preparation(plan(fields=fields, scaling="off", label=LabelPlan("occupied")))
    assert take(series, 1.0, 20.0, occupied="ON").samples == [([20.0], 1.0)]
    assert take(series, 2.0, 21.0) == Prepared([21.0], [])


@pytest.mark.parametrize("found", ["in_reading", "later"])
def test_label_without_its_reading_is_no_reading(found: str) -> None:
    fields = {"temperature": TEMPERATURE, "fault": WIDE}
    label = LabelPlan("fault", found, after_seconds=60.0 if found == "later" else None)
    series = Preparation(plan(fields=fields, inputs=["temperature"], scaling="off", label=label))
    assert reason(series, {"fault": 1})[0] == "field_missing"


def test_later_message_labels_the_sample_of_its_id_once() -> None:
    fields = {"temperature": TEMPERATURE, "fault": ReadingField(kind="category", values=["none", "bearing"])}
    series = Preparation(plan(fields=fields, scaling="off", label=LabelPlan("fault", "by_id")))
    for at, name in ((1.0, "a"), (2.0, "b")):
        assert series.take({"temperature": at}, Moment(at), name).samples == []
    assert series.take({"fault": "bearing"}, Moment(3.0), "a").samples == [([1.0], 1.0)]
    for reading in ({"temperature": 3.0}, {"fault": "none"}):
        found, said = reason(series, reading, Moment(3.0))
        assert (found, said.startswith("id is missing, by which a label names")) == ("field_missing", True)
    for name in ("a", "c"):
        with pytest.raises(ReadingRefusedError, match=f"no sample with the id '{name}' waits") as refused:
            series.take({"fault": "none"}, Moment(4.0), name)
        assert refused.value.reason == "label_without_sample"


def test_later_message_labels_the_samples_around_its_time() -> None:
    fields = {"temperature": TEMPERATURE, "occupied": ReadingField(kind="boolean")}
    label = LabelPlan("occupied", "by_time", within_seconds=30.0, wait_seconds=7200.0)
    series = Preparation(plan(fields=fields, scaling="off", label=label))
    for minute in range(4):
        take(series, 60.0 * minute, float(minute))
    assert series.take({"occupied": 1}, Moment(90.0)).samples == [([1.0], 1.0), ([2.0], 1.0)]
    assert reason(series, {"occupied": 1}, Moment(90.0))[0] == "label_without_sample"
    take(series, 7201.0, 5.0)
    assert series.status.unlabelled == 1
    assert reason(series, {"occupied": 1}, Moment(0.0))[0] == "label_without_sample"


def test_forecast_is_labelled_by_the_first_reading_after_its_time() -> None:
    label = LabelPlan("temperature", "later", after_seconds=120.0, within_seconds=60.0)
    series = Preparation(of_temperature(label=label))
    assert [take(series, at, at / 10).samples for at in (0.0, 60.0, 119.0)] == [[], [], []]
    assert take(series, 121.0, 30.0).samples == [([0.0], 30.0)]
    assert take(series, 500.0, 40.0).samples == []
    assert series.status.unlabelled == 3
    assert series.status.waiting_for_label == 1


@given(st.lists(st.floats(0.5, 500.0), max_size=40), st.floats(-40, 80))
def test_nothing_of_the_future_is_in_a_sample_but_its_label(steps: list[float], last: float) -> None:
    label = LabelPlan("temperature", "later", after_seconds=100.0, within_seconds=100.0)
    series = [Preparation(of_temperature(WindowPlan(3, 10.0), label=label)) for _ in range(2)]
    made, at = [], 0.0
    for step in steps:
        at += step
        if step >= 5.0:
            made.append([take(each, at, at % 70).samples for each in series])
    assert all(first == second for first, second in made)
    later = [take(each, at + 101.0, value) for each, value in zip(series, (last, 79.0), strict=True)]
    assert [inputs for inputs, _ in later[0].samples] == [inputs for inputs, _ in later[1].samples]


def test_samples_that_wait_are_bounded_and_the_oldest_are_dropped() -> None:
    label = LabelPlan("temperature", "later", after_seconds=1e5)
    for window, most in ((WindowPlan(1, 1.0), MAX_WAITING_SAMPLES), (WindowPlan(1024, 1.0), MAX_WAITING_BYTES // 4096)):
        series = Preparation(of_temperature(window, label=label))
        readings = window.readings - 1 + most
        for second in range(readings + 3):
            take(series, float(second), 1.0)
        assert (series.status.waiting_for_label, series.status.unlabelled) == (most, 3)


def test_device_scale_is_the_mean_and_deviation_of_what_was_read() -> None:
    series = Preparation(plan(scaling="device", fields=ROOM, inputs=["temperature", "door"]))
    readings = [float(value % 7) for value in range(SETTLED_READINGS + 5)]
    taken = [series.take(GOOD | {"temperature": value}, Moment(at)) for at, value in enumerate(readings)]
    assert [each.inputs is None for each in taken[:SETTLED_READINGS]] == [True] * (SETTLED_READINGS - 1) + [False]
    mean = sum(readings) / len(readings)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in readings) / len(readings))
    assert taken[-1].inputs == pytest.approx([(readings[-1] - mean) / deviation, 0.0])


def test_series_goes_on_after_a_restart_where_it_was() -> None:
    label = LabelPlan("temperature", "later", after_seconds=120.0)
    kept_on = Preparation(of_temperature(WindowPlan(2, 60.0), label=label))
    for at in (0.0, 60.0):
        take(kept_on, at, at)
    written = msgspec.json.encode(kept_on.state)
    restarted = Preparation(kept_on.plan, msgspec.json.decode(written, type=PreparationState))
    for at in (120.0, 180.0, 240.0):
        assert take(restarted, at, at) == take(kept_on, at, at)
    assert Preparation(of_temperature(), restarted.state).status.readings == 0


def test_question_is_answered_as_if_it_were_the_newest_reading_and_changes_nothing() -> None:
    series = Preparation(of_temperature(WindowPlan(3, 60.0)))
    for at in (0.0, 60.0, 120.0):
        take(series, at, at)
    before = msgspec.json.encode(series.state)
    assert series.inputs_with({"temperature": 1.0}, Moment(180.0)) == [60.0, 120.0, 1.0]
    assert series.inputs_with({"temperature": 1.0}, Moment(125.0)) == [0.0, 60.0, 1.0]
    for at, expected in ((119.0, "late"), (9000.0, "window_not_full")):
        with pytest.raises(ReadingRefusedError) as refused:
            series.inputs_with({"temperature": 1.0}, Moment(at))
        assert refused.value.reason == expected
    assert msgspec.json.encode(series.state) == before
    fields = {"temperature": WIDE, "fault": ReadingField(kind="boolean")}
    named_by_id = Preparation(plan(fields=fields, scaling="off", label=LabelPlan("fault", "by_id")))
    assert named_by_id.begun_anew().take({"temperature": 1.0}, Moment(0.0)).inputs == [1.0]
    own = series.begun_anew()
    assert [take(own, at, at).inputs for at in (0.0, 60.0, 120.0)] == [None, None, [0.0, 60.0, 120.0]]


READINGS = st.dictionaries(
    st.sampled_from(["temperature", "mode", "door", "more"]),
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.just({"value": 1, "unit": "K"}),
)


@given(st.lists(st.tuples(READINGS | st.just(GOOD), st.floats(0, 1e6), st.booleans()), max_size=30))
def test_any_readings_at_any_times_are_taken_or_have_a_reason(stream: list[tuple[dict[str, Any], float, bool]]) -> None:
    series = Preparation(plan(WindowPlan(2, 60.0, gap="hold"), label=LabelPlan("temperature", "later", 60.0)))
    for reading, at, is_arrival in stream:
        try:
            taken = series.take(reading, Moment(at, is_arrival))
        except ReadingRefusedError as error:
            assert str(error)
        else:
            rows = [taken.inputs] if taken.inputs else []
            assert all(len(row) == series.plan.input.size and max(map(abs, row)) <= 1 for row in rows)


def test_times_of_a_window_grow() -> None:
    """What a late reading can't change: rows stand in the order in which they were read."""
    series = Preparation(of_temperature(WindowPlan(5, 10.0)))
    for at in (10, 20, 15, 30, 25, 40, 50):
        try:
            take(series, float(at), float(at))
        except ReadingRefusedError:
            continue
    assert all(earlier < later for (earlier,), (later,) in pairwise(series.state.rows))
