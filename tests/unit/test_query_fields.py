"""Fields of the sample store by name: where they are, and what is said of one that is not there."""

import pytest

from fleet_protocol.analytics.fields import (
    FieldPlace,
    UnknownFieldError,
    check_field_name,
    class_count,
    find_field,
    is_covered,
)
from fleet_protocol.reading_plan import LabelPlan, ReadingField, ReadingPlan, WindowPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema, inputs_as_one, labels_as_one
from tests.support.queries import TASK, described

INPUTS = {"sound": InputSchema([2, 3], -1.0, 1.0), "level": InputSchema([1], 0.0, 5.0)}
HEADS = {"word": LabelSchema(5), "loudness": LabelSchema(kind="regression", values=2)}
SEVERAL = described(labels_as_one(HEADS), input=inputs_as_one(INPUTS), inputs=INPUTS, heads=HEADS)
PLAN = ReadingPlan(
    {
        "temperature": ReadingField(unit="°C", range=[-40.0, 80.0], usual_range=[0.0, 40.0]),
        "mode": ReadingField("category", values=["off", "eco", "on"]),
        "open": ReadingField("boolean"),
        "room": ReadingField("category", values=["attic", "cellar"]),
    },
    window=WindowPlan(readings=3, step_seconds=60.0),
    label=LabelPlan("room"),
)
NAMED = described(LabelSchema(2), input=PLAN.input, readings=PLAN)


@pytest.mark.parametrize(
    ("task", "field", "place"),
    [
        (TASK, "label", FieldPlace("class")),
        (TASK, "label[0]", FieldPlace("class")),
        (TASK, "input[3]", FieldPlace("inputs", 3)),
        (TASK, "received_at", FieldPlace("received_at")),
        (TASK, "text.places", FieldPlace("text", name="places")),
        (SEVERAL, "input.sound[5]", FieldPlace("inputs", 5)),
        (SEVERAL, "input.level", FieldPlace("inputs", 6)),
        (SEVERAL, "label.word", FieldPlace("label", 0)),
        (SEVERAL, "label.loudness[1]", FieldPlace("label", 2)),
        (NAMED, "reading.temperature", FieldPlace("inputs", 10, offset=20.0, factor=20.0)),
        (NAMED, "reading.mode", FieldPlace("inputs", 11, width=3)),
        (NAMED, "reading.open", FieldPlace("inputs", 14)),
    ],
)
def test_field_is_found_where_samples_have_it(task, field, place) -> None:
    assert find_field(field, task) == place


@pytest.mark.parametrize(
    ("task", "field", "words"),
    [
        (TASK, "input[4]", "input has 4 values"),
        (TASK, "input", "name one, from"),
        (TASK, "input.sound[0]", "input alone, without names"),
        (TASK, "label[1]", "label has 1 values"),
        (TASK, "inputs[0]", "names no field"),
        (TASK, "reading.mode", "takes no named readings"),
        (TASK, "text", "a text is named text.NAME"),
        (SEVERAL, "input[0]", "input.sound, input.level"),
        (SEVERAL, "label", "label.word, label.loudness"),
        (NAMED, "reading.room", "is no reading of tiny, which has temperature, mode, open"),
        (TASK, "input[" + "9" * 80 + "]", "names no field"),
    ],
)
def test_field_that_is_not_there_is_said_with_those_that_are(task, field, words) -> None:
    with pytest.raises(UnknownFieldError, match=words):
        find_field(field, task)


def test_classes_of_labels_and_categories_are_counted() -> None:
    assert class_count("label", TASK) == 3
    assert class_count("label.word", SEVERAL) == 5
    assert class_count("label.loudness[0]", SEVERAL) == 0
    assert class_count("reading.mode", NAMED) == 3
    assert class_count("input[0]", TASK) == 0


def test_name_of_a_whole_covers_its_values_and_nothing_else() -> None:
    assert is_covered("input[3]", "input")
    assert is_covered("input.sound[3]", "input.sound")
    assert is_covered("label", "label")
    assert not is_covered("input[3]", "input[30]")
    assert not is_covered("input[30]", "input[3]")
    assert not is_covered("inputs", "input")


NO_NAMES = ["", "labels", "input[-1]", "input[01]", "received_at.x", "reading.1a", "text.a b", "label\n"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_name_of_no_field_is_refused_in_a_configuration(name) -> None:
    with pytest.raises(ValueError, match="names no field"):
        check_field_name(name)
