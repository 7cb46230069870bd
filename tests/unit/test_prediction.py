"""What scores say: by the kind of a label, a value, and how sure the model is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.prediction import Prediction, interpret
from edge_agent.core.version_choice import KnownVersion, weights_at_hand
from fleet_protocol.sample_schema import LabelSchema

SCORES = st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=8)
OLD, NEW = KnownVersion(1, "bundle", "old"), KnownVersion(2, "bundle", "new")


def test_class_is_that_of_the_highest_score_with_its_probability() -> None:
    found = interpret([0.0, math.log(3.0)], LabelSchema(2))
    assert found.value == 1
    assert found.confidence == pytest.approx(0.75)
    assert found.probabilities == pytest.approx([0.25, 0.75])


@given(SCORES)
def test_probabilities_of_classes_add_up_whatever_the_scores(scores: list[float]) -> None:
    found = interpret(scores, LabelSchema(len(scores)))
    assert found.probabilities is not None
    assert math.fsum(found.probabilities) == pytest.approx(1)
    assert found.confidence == max(found.probabilities)


@given(SCORES)
def test_each_of_several_labels_is_more_likely_than_not(scores: list[float]) -> None:
    found = interpret(scores, LabelSchema(len(scores), "multi_label"))
    assert found.probabilities is not None
    assert found.value == [int(score > 0) for score in scores]
    assert all(
        (each >= 0.5) == bool(value) or each == 0.5
        for each, value in zip(found.probabilities, found.value, strict=True)
    )


def test_positions_have_a_class_each_and_the_least_sure_one_counts() -> None:
    # Two classes of three positions: [classes, positions] in C order.
    found = interpret([0, 9, 0, 5, 0, math.log(3)], LabelSchema(2, shape=[3]))
    assert found.value == [1, 0, 1]
    assert found.confidence == pytest.approx(0.75)
    assert found.probabilities is None


@pytest.mark.parametrize(
    ("scores", "label", "expected"),
    [
        ([21.5], LabelSchema(kind="regression", values=1), 21.5),
        ([1.0, 2.0], LabelSchema(kind="regression", values=2), [1.0, 2.0]),
        ([3.0, -1.0], LabelSchema(kind="reconstruction"), 5.0),
        ([1.0, 2.0], LabelSchema(kind="none"), [1.0, 2.0]),
    ],
)
def test_without_classes_there_is_a_value_alone(scores: list[float], label: LabelSchema, expected: object) -> None:
    assert interpret(scores, label) == Prediction(expected)


@pytest.mark.parametrize(
    ("here", "held", "expected"),
    [
        ({"new", "old"}, OLD, NEW),
        ({"old"}, OLD, OLD),
        ({"old"}, None, NEW),
        (set(), OLD, NEW),
        ({"old"}, KnownVersion(1, "another bundle", "old"), NEW),
        ({"old"}, KnownVersion(1, "bundle", "old", generation=3), NEW),
    ],
)
def test_newest_weights_that_are_here_predict(
    here: set[str], held: KnownVersion | None, expected: KnownVersion
) -> None:
    assert weights_at_hand(NEW, held, here.__contains__) == expected
