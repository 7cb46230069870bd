"""Predictions of a distribution over models: what the samples don't settle, drawn models differ on."""

import math

import numpy as np
import pytest

from benchmarks.heterogeneity.calibration import Answers, calibration_error
from bundle_runtime.drawn_models import DrawnModels
from edge_agent.core.prediction import interpret
from edge_agent.verbs.own_predictions import words_of
from fleet_protocol.codec import deviations
from fleet_protocol.sample_schema import LabelSchema

MEAN = np.array([2.0, -1.0], np.float32)
ROWS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)


def line(weights: np.ndarray) -> np.ndarray:
    return (ROWS @ weights)[:, np.newaxis]


def logits(weights: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros(len(ROWS)), ROWS @ weights], axis=1)


def test_numbers_are_as_uncertain_as_the_weights_that_they_are_made_with() -> None:
    """A sum of weights has the sum of their variances."""
    deviation = np.array([0.5, 1.0], np.float32)
    found, spread = DrawnModels(MEAN, deviation, 4000, has_classes=False).predict(line)
    np.testing.assert_allclose(found.ravel(), [2, -1, 1], atol=0.06)
    np.testing.assert_allclose(spread.ravel(), [0.5, 1, math.hypot(0.5, 1)], rtol=0.05)


def test_uncertain_weights_make_probabilities_less_sure() -> None:
    sure, no_spread = DrawnModels(MEAN, np.zeros(2, np.float32), 16, has_classes=True).predict(logits)
    unsure, spread = DrawnModels(MEAN, np.full(2, 3, np.float32), 400, has_classes=True).predict(logits)
    np.testing.assert_allclose(
        interpret(sure[0].tolist(), LabelSchema(2)).confidence, 1 / (1 + math.exp(-2)), rtol=1e-5
    )
    assert not no_spread.any()
    for one, other in zip(sure, unsure, strict=True):
        probability, less = (np.exp(each)[1] / np.exp(each).sum() for each in (one, other))
        assert abs(less - 0.5) < abs(probability - 0.5)
    assert (spread > 0.2).all()


def test_predictions_of_the_same_inputs_are_the_same() -> None:
    models = DrawnModels(MEAN, np.ones(2, np.float32), 4, has_classes=True)
    np.testing.assert_array_equal(models.predict(logits), models.predict(logits))


def test_a_precision_of_the_prior_is_its_deviation_and_one_below_it_no_more() -> None:
    found = deviations(np.array([0.2, 0.8, 0.199], np.float32), np.full(3, 0.2, np.float32))
    np.testing.assert_allclose(found, [0.2, 0.1, 0.2], rtol=1e-6)


def test_uncertainty_is_that_of_the_answer() -> None:
    found = interpret([0.0, math.log(3)], LabelSchema(2), [0.3, 0.04])
    assert (found.value, found.uncertainty) == (1, 0.04)
    assert interpret([1.5], LabelSchema(kind="regression", values=1), [0.25]).uncertainty == 0.25
    assert interpret([0.0, 1.0], LabelSchema(2)).uncertainty is None


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        ({"value": 3, "confidence": 0.97, "uncertainty": 0.021}, "3 (97% ± 2%), version 7"),
        ({"value": 3, "confidence": 0.97}, "3 (97%), version 7"),
        ({"value": 21.5, "uncertainty": 0.31}, "21.5 ± 0.31, version 7"),
        ({"value": [1.0, 2.0], "uncertainty": [0.1, 0.2]}, "1 ± 0.1 2 ± 0.2, version 7"),
    ],
)
def test_people_read_it_behind_the_answer(prediction: dict[str, object], words: str) -> None:
    assert words_of({"task": "digits", "version": 7, "milliseconds": 1.0, "prediction": prediction}) == words


def test_calibration_error_is_how_far_confidence_is_from_the_share_of_right_answers() -> None:
    """Nine of ten right at 90 % are calibrated; five of ten at 90 % are off by 0.4."""
    scores = np.tile(np.log([0.9, 0.1]).astype(np.float32), (10, 1))
    good = Answers.of(scores, np.array([0] * 9 + [1]))
    bad = Answers.of(scores, np.array([0] * 5 + [1] * 5))
    assert calibration_error([good]) == pytest.approx(0, abs=1e-6)
    assert calibration_error([bad]) == pytest.approx(0.4, abs=1e-6)
    assert calibration_error([good, bad]) == pytest.approx(0.2, abs=1e-6)
