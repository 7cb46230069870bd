"""What drawn pictures are judged by, and who has which pictures."""

import numpy as np
import pytest

from benchmarks.split_gans.scenario import (
    CLASSES,
    DEEPEST,
    DEVICES_OF_DOMAIN,
    FEWEST,
    MOST,
    Domain,
    Labelled,
    corrupted,
    nearly_empty,
    unlike_devices,
)
from benchmarks.split_gans.scores import inception_score, scores


def test_scores_are_those_of_the_example_worked_by_hand():
    found = np.eye(2)[[0, 0, 1, 1]]
    judged = scores(found, np.array([0, 1, 1, 1]), np.eye(2))
    assert judged.accuracy == 0.75
    assert np.isclose(judged.precision, (1 / 2 + 1) / 2)
    assert np.isclose(judged.recall, (1 + 2 / 3) / 2)
    assert np.isclose(judged.f1, (2 / 3 + 4 / 5) / 2)
    assert np.isclose(judged.false_positive_rate, (1 / 3 + 0) / 2)


def test_class_that_is_never_told_has_no_precision_and_divides_by_nothing():
    judged = scores(np.eye(3)[[0, 0]], np.array([0, 1]), np.full((4, 3), 1 / 3))
    assert np.isclose(judged.precision, 0.5 / 3)
    assert np.isclose(judged.score, 1)


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_score_is_the_number_of_classes_where_pictures_are_sure_and_even(classes):
    assert np.isclose(inception_score(np.eye(10)[np.arange(100) % classes]), classes)


def domains() -> list[Domain]:
    classes = np.arange(8000) % CLASSES
    everything = Labelled(np.arange(8000, dtype=np.float32)[:, None], classes)
    return [Domain(name, everything, everything) for name in ("digits", "letters")]


@pytest.mark.parametrize("seed", range(5))
def test_devices_lack_two_or_three_classes_and_share_no_picture(seed):
    scenario = unlike_devices(domains(), seed)
    for name in ("digits", "letters"):
        devices = [each for each in scenario.devices if each.domain == name]
        assert len(devices) == DEVICES_OF_DOMAIN
        assert all(FEWEST <= len(each.data) <= MOST for each in devices)
        assert all(7 <= len(set(each.data.classes.tolist())) <= 8 for each in devices)
        assert set.union(*(set(each.data.classes.tolist()) for each in devices)) == set(range(CLASSES))
        taken = np.concatenate([each.data.pictures[:, 0] for each in devices])
        assert len(set(taken.tolist())) == len(taken)
    assert sum(each.cut == DEEPEST for each in scenario.devices) == 5


def test_one_device_of_each_domain_is_corrupted_or_nearly_empty():
    scenario = unlike_devices(domains(), 0)
    noisy, empty = corrupted(scenario, 0), nearly_empty(scenario, 0)
    changed = [a.name for a, b in zip(noisy.devices, scenario.devices, strict=True) if a.data is not b.data]
    assert changed == ["digits-0", "letters-0"]
    assert [len(each.data) for each in empty.devices if each.name.endswith("-0")] == [5, 5]
