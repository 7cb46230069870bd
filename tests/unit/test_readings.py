"""Readings: values are found by JSON paths, and one that is no sample has one reason, in words that help."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.sources.json_path import FieldMissingError, parse_path
from edge_agent.sources.readings import ReadingForm
from fleet_protocol.sample_line import Sample

MEMBERS = st.text(st.characters(codec="utf-8", exclude_characters="'\\", exclude_categories=["Cs"]), min_size=1)
STEPS = st.lists(MEMBERS | st.integers(0, 3), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
ROOM = ReadingForm(
    "occupancy", (parse_path("$.temperature"), parse_path("$.state[0]")), parse_path("$.occupied"), {"ON": 1, "OFF": 0}
)


def form(*paths: str, label: str = "", **words: float) -> ReadingForm:
    return ReadingForm("occupancy", tuple(map(parse_path, paths)), parse_path(label) if label else None, words)


def refusal(reading: ReadingForm, document: object) -> tuple[str, str]:
    with pytest.raises(ReadingRefusedError) as refused:
        reading.sample(document)
    return refused.value.reason, str(refused.value)


@given(STEPS)
def test_path_leads_to_the_value_that_was_put_there(steps: list[str | int]) -> None:
    document: object = "found"
    for step in reversed(steps):
        document = {step: document} if isinstance(step, str) else [*range(step), document]
    text = "$" + "".join(f"['{step}']" if isinstance(step, str) else f"[{step}]" for step in steps)
    assert parse_path(text).of(document) == "found"


@pytest.mark.parametrize(
    "text", ["", "temperature", "$temperature", "$.", "$..a", "$[*]", "$[-1]", "$.a b", "$['a'b']"]
)
def test_what_is_no_path_to_one_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no path to one value; write it as"):
        parse_path(text)


def test_missing_field_says_what_is_there_instead() -> None:
    with pytest.raises(FieldMissingError, match=r"\$\.a\.b is missing: there is no 'b' among c, d"):
        parse_path("$.a.b").of({"a": {"d": 1, "c": 2}})


@pytest.mark.parametrize(
    ("payload", "paths", "expected"),
    [
        # As the documentation of each shows them.
        (
            b'{"battery":97,"humidity":41.2,"linkquality":255,"temperature":21.5}',
            ("$.temperature", "$.humidity"),
            [21.5, 41.2],
        ),
        (
            b'{"Time":"2026-01-01T00:00:00","SI7021":{"Temperature":20.7,"Humidity":48},"TempUnit":"C"}',
            ("$.SI7021.Temperature", "$.SI7021.Humidity"),
            [20.7, 48],
        ),
        (b"21.5", ("$",), [21.5]),
        (b"ON", ("$",), [1]),
        (b'{"contact":true,"tilt":null}', ("$.contact",), [1]),
        (b'{"axes":[1,2,3]}', ("$.axes",), [1, 2, 3]),
    ],
    ids=["zigbee2mqtt", "tasmota", "esphome", "bare word", "boolean", "list"],
)
def test_published_payloads_are_taken(payload: bytes, paths: tuple[str, ...], expected: list[float]) -> None:
    reading = form(*paths, ON=1)
    assert reading.sample(reading.decode(payload)) == Sample("occupancy", expected)


def test_label_is_found_as_the_inputs_are() -> None:
    assert ROOM.sample({"temperature": 20, "state": ["ON"], "occupied": "OFF"}) == Sample("occupancy", [20, 1], 0)


def test_null_is_a_missing_value() -> None:
    (value,) = form("$.a").sample({"a": None}).inputs
    assert math.isnan(value)


@pytest.mark.parametrize("given", [10**400, -(10**400), 2**1024])
def test_integer_larger_than_any_float_is_infinite_which_no_schema_takes(given: int) -> None:
    assert form("$.a").sample({"a": given}).inputs == [math.inf]


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        ({"a": "21,5"}, "not_a_number", r"$.a is '21,5'; publish a number, with a decimal point"),
        ({"a": "warm"}, "not_a_number", "give the number of this text under words"),
        ({"a": {}}, "not_a_number", "$.a is {}"),
        ({"b": 1}, "field_missing", "$.a is missing: there is no 'a' among b"),
        (3.0, "field_missing", "as the value around it has no parts"),
    ],
)
def test_reading_that_is_no_sample_has_one_reason(document: object, reason: str, words: str) -> None:
    found, said = refusal(form("$.a"), document)
    assert found == reason
    assert words in said


@pytest.mark.parametrize("payload", [b"", b"on", b"{", b'{"a": NaN}', b"\xff\xfe", b'{"a": "\xff"}', b"[" * 100_000])
def test_payload_that_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(ReadingRefusedError, match="is not JSON") as refused:
        form("$.a").decode(payload)
    assert refused.value.reason == "not_json"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([1], "name those to take under inputs"),
        ({"inputs": "no"}, "inputs is a text"),
        ({"inputs": [1], "task": "digits"}, "it is for task 'digits'"),
    ],
)
def test_without_paths_a_reading_has_the_form_of_a_sample(document: object, words: str) -> None:
    assert form().sample({"inputs": [1, 2], "label": 1}) == Sample("occupancy", [1, 2], 1)
    reason, said = refusal(form(), document)
    assert reason == "not_a_sample"
    assert words in said


@given(JSON)
def test_any_document_is_a_sample_or_has_a_reason(document: object) -> None:
    for reading in (ROOM, form(), form("$", label="$")):
        try:
            assert isinstance(reading.sample(document), Sample)
        except ReadingRefusedError as error:
            assert str(error)
