"""Plans of named readings agree with themselves or say what to change; documents become readings of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.sources.json_path import parse_path
from edge_agent.sources.named_form import NamedForm
from edge_agent.sources.named_line import read_named
from edge_agent.sources.reading_time import seconds_of
from edge_agent.sources.series import MAX_SERIES, SeriesOfReadings
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.reading_plan import ReadingPlan, check_labelled, check_readings
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.task_description import TaskDescription
from workbench.recipe_folder import find_recipe

OCCUPANCY = parse_description((find_recipe("occupancy") / "bundle" / DESCRIPTION_FILE).read_bytes())
DIGITS = parse_description((find_recipe("digits") / "bundle" / DESCRIPTION_FILE).read_bytes())
ROOM = {
    "fields": {"temperature": {"range": [-40, 80]}, "occupied": {"kind": "boolean"}},
    "label": {"field": "occupied"},
}


def plan(**changes: Any) -> ReadingPlan:
    return msgspec.convert(ROOM | changes, ReadingPlan)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": {"a": {}}, "label": None}, r"readings.fields.a: range is []; give lowest and highest"),
        ({"fields": {"a": {"range": [1, 1]}}, "label": None}, "range is [1.0, 1.0]"),
        ({"fields": {"a": {"range": [0, 1], "usual_range": [1]}}, "label": None}, "usual_range is [1.0]"),
        ({"fields": {"a": {"kind": "category"}}, "label": None}, "kind 'category' takes values; write that"),
        ({"fields": {"a": {"kind": "boolean", "range": [0, 1]}}, "label": None}, "takes no range or values"),
        ({"fields": {"a": {"kind": "category", "values": ["x", "x"]}}, "label": None}, "values names one twice"),
        ({"fields": {"time": {"range": [0, 1]}}, "label": None}, "'time' is not a field's name"),
        ({"label": {"field": "people"}}, "there is no field 'people'; there are 'temperature', 'occupied'"),
        ({"inputs": ["temperature", "temperature"]}, "readings.inputs names a field twice"),
        ({"fields": {"occupied": {"kind": "boolean"}}}, "no field is left for the model"),
        ({"label": {"field": "temperature", "found": "later"}}, "after_seconds and found = 'later' belong together"),
        ({"label": {"field": "occupied", "after_seconds": 60}}, "after_seconds and found = 'later' belong together"),
        ({"window": {"readings": 2, "step_seconds": 60, "longest_gap_seconds": 30}}, "every reading would be a gap"),
        ({"window": {"readings": 70_000, "step_seconds": 1}}, "a sample has 70000 values; the limit is 65536"),
    ],
)
def test_plan_that_contradicts_itself_says_what_to_change(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_readings(plan(**changes), "task.toml")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "label", "words"),
    [
        ({}, LabelSchema(3), "'occupied' is one boolean of 2, which is no label of kind 'class' with 3 classes"),
        ({"label": None}, LabelSchema(2), "readings.label is missing"),
        ({}, LabelSchema(kind="reconstruction"), "leave [readings.label] out"),
        ({"label": {"field": "temperature"}}, LabelSchema(kind="regression", values=2), "is one number"),
        ({}, LabelSchema(kind="regression", values=1), "is one boolean of 2"),
    ],
)
def test_label_that_readings_can_not_give_is_said(changes: dict[str, Any], label: LabelSchema, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_labelled(plan(**changes), label, "task.toml")
    assert words in str(refused.value)


def test_description_without_readings_has_the_bytes_that_it_had() -> None:
    assert b"readings" not in msgspec.json.encode(DIGITS)


def test_description_whose_input_is_not_that_of_its_readings_is_refused() -> None:
    wrong = msgspec.structs.replace(OCCUPANCY, input=msgspec.structs.replace(OCCUPANCY.input, maximum=2.0))
    with pytest.raises(ConfigurationError, match="`input` is not what `readings` make"):
        parse_description(msgspec.json.encode(wrong))


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_500, 1_700_000_000.5),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01 01:01:00+01:00", 60.0),
    ],
)
def test_times_are_read_as_programs_write_them(time: object, expected: float) -> None:
    assert seconds_of(time) == expected


@given(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30) | st.lists(st.none()))
def test_any_time_is_read_or_has_a_reason(time: object) -> None:
    try:
        assert seconds_of(time) >= 0
    except ReadingRefusedError as error:
        assert error.reason == "wrong_time"


def test_paths_lead_to_fields_time_and_unit() -> None:
    form = NamedForm(
        {"temperature": parse_path("$.SI7021.Temperature"), "occupied": parse_path("$.occupied")},
        time=parse_path("$.Time"),
        units=((parse_path("$.TempUnit"), "C"),),
    )
    document = {"Time": "2026-01-01T00:00:00", "SI7021": {"Temperature": 20.7}, "TempUnit": "C"}
    reading = form.reading(document, {})
    assert (reading.values, reading.time) == ({"temperature": 20.7, "occupied": None}, "2026-01-01T00:00:00")
    with pytest.raises(ReadingRefusedError, match=r"\$.TempUnit is 'F', not 'C'") as refused:
        form.reading(document | {"TempUnit": "F"}, {})
    assert refused.value.reason == "wrong_unit"


def test_without_paths_members_are_fields_and_words_are_numbers() -> None:
    reading = NamedForm().reading({"temperature": "hot", "time": 5, "id": 7}, {"hot": 60.0})
    assert (reading.values, reading.time, reading.identifier) == ({"temperature": 60.0}, 5, "7")
    with pytest.raises(ReadingRefusedError, match="3 has no members; name where each value stands"):
        NamedForm().reading(3, {})
    with pytest.raises(ReadingRefusedError, match="id has 65 characters; at most 64 are taken"):
        NamedForm().reading({"id": "x" * 65}, {})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"task": "room"}', "missing key `reading`"),
        (b'{"task": "room", "reading": [1]}', "Expected `object`, got `array`"),
        (b'{"task": "room", "reading": {}, "serie": ""}', "did you mean 'series'?"),
        (b'{"task": "room", "reading": {', "not valid JSON"),
        (b'{"task": "room", "reading": {"a": NaN}', "not valid JSON"),
    ],
)
def test_line_that_is_no_reading_says_why(line: bytes, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_named(line)
    assert words in str(refused.value)


def test_series_are_bounded_and_begin_again_with_another_plan() -> None:
    known: dict[str, TaskDescription | None] = {"room": None, "digits": DIGITS}
    series = SeriesOfReadings(known.get)

    def reason(task: str, name: str = "") -> str:
        with pytest.raises(ReadingRefusedError) as refused:
            series.of(task, name)
        return refused.value.reason

    assert [reason("room"), reason("digits")] == ["task_unknown", "not_a_sample"]
    known["room"] = OCCUPANCY
    first = series.of("room", "")
    assert series.of("room", "") is first
    changed = msgspec.structs.replace(OCCUPANCY.readings, scaling="off")
    known["room"] = msgspec.structs.replace(OCCUPANCY, readings=changed)
    assert series.of("room", "") is not first
    for number in range(MAX_SERIES):
        series.of("room", str(number))
    assert reason("room", "one more") == "too_many"
    assert reason("room", "x" * 65) == "not_a_sample"
    assert set(series.status) == {"room", *(f"room/{number}" for number in range(MAX_SERIES))}
