"""Scores say how much better than one answer to all samples a model is, whatever the units."""

import msgspec
import numpy as np
import pytest

from bundle_runtime.runner import Evaluation
from bundle_runtime.samples import Samples
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.task_description import TaskDescription
from tests.support.bundles import write_bundle
from workbench.simulation.scores import Scorer, scorer

NO_WEIGHTS = np.zeros(1, np.float32)


class Answers:
    """A model that gives these scores, whatever its weights."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores.astype(np.float32)

    def predict_features(self, _weights: np.ndarray, inputs: np.ndarray, _head: str) -> np.ndarray:
        return self._scores[: len(inputs)]

    def evaluate_features(self, _weights: np.ndarray, samples: Samples) -> Evaluation:
        return Evaluation(np.ones(len(samples), np.float32), self._scores.argmax(axis=1) == samples.labels)


@pytest.fixture
def task(tmp_path) -> TaskDescription:
    return write_bundle(tmp_path).description


def scored(task: TaskDescription, label: LabelSchema, labels: np.ndarray, answers: np.ndarray, **fields) -> Scorer:
    task = msgspec.structs.replace(task, label=label, **fields)
    samples = Samples(np.zeros((len(labels), task.input.size), np.float32), labels)
    return scorer(Answers(answers), task, samples)


def test_one_answer_to_classes_is_the_commonest(task):
    labels = np.array([2, 2, 2, 0, 1])
    assert scored(task, LabelSchema(classes=4), labels, np.zeros((5, 4))).one_answer == pytest.approx(0.6)
    assert scored(task, LabelSchema(classes=4), np.array([1, 1]), np.zeros((2, 4))).one_answer == 1.0


def test_one_answer_at_each_position_is_the_commonest_there(task):
    labels = np.array([[0, 1], [0, 1], [1, 1], [0, 0]])
    assert scored(task, LabelSchema(classes=2, shape=[2]), labels, np.zeros((4, 2, 2))).one_answer == 0.75


def test_one_answer_to_several_labels_names_as_many_as_pay(task):
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]], np.float32)
    found = scored(task, LabelSchema(kind="multi_label", classes=3), labels, labels - 0.5)
    assert found.one_answer == pytest.approx(2 * 4 / (4 + 6))
    assert found.score(NO_WEIGHTS) == 1.0


TARGETS = np.array([[0.0, 0.0], [1e6, 1e-3], [2e6, 2e-3], [3e6, 3e-3]], np.float32)
LEARNED_ONE = TARGETS * np.array([1, 0])


def test_number_of_a_small_unit_counts_as_much_as_one_of_a_large_unit(task):
    label = LabelSchema(kind="regression", values=2)
    scaling = Scaling(None, Scale(TARGETS.mean(axis=0).tolist(), TARGETS.std(axis=0).tolist()))
    found = scored(task, label, TARGETS, LEARNED_ONE, scaling=scaling)
    assert found.one_answer == 0
    assert found.score(NO_WEIGHTS) == pytest.approx(1 - (0 + 14) / (5 + 5), rel=1e-5)
    assert scored(task, label, TARGETS, TARGETS, scaling=scaling).score(NO_WEIGHTS) == 1.0
    assert scored(task, label, TARGETS, LEARNED_ONE).score(NO_WEIGHTS) == pytest.approx(1.0), (
        "nothing is known of units"
    )


def test_inputs_given_back_count_in_the_scale_of_their_columns(task):
    inputs = np.array([[0, 0], [1, 0.001], [2, 0.002]], np.float32)
    task = msgspec.structs.replace(task, input=InputSchema([2], 0.0, 2.0), label=LabelSchema(kind="reconstruction"))
    task = msgspec.structs.replace(task, scaling=Scaling(Scale([1.0, 0.001], [1.0, 0.001]), None))
    samples = Samples(inputs, np.zeros((3, 0), np.float32))
    assert scorer(Answers(inputs * [1, 0]), task, samples).score(NO_WEIGHTS) == pytest.approx(1 - 5 / 4)
