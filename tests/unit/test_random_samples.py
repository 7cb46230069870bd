"""Random samples are ones that a device of the task would take, and there is something to learn in them."""

import msgspec
import numpy as np
import pytest

from bundle_runtime.sample_checks import find_misfits
from fleet_protocol.bundle import parse_description
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.scaling import Scale, Scaling
from workbench.export.trials.random_samples import MOST_VALUES, random_samples
from workbench.recipe_folder import find_recipe

DIGITS = parse_description((find_recipe("digits") / "bundle" / "task.json").read_bytes())

LABELS = [
    LabelSchema(classes=10),
    LabelSchema(classes=3, kind="multi_label"),
    LabelSchema(values=2, kind="regression"),
    LabelSchema(kind="reconstruction"),
]


def task_of(label=LABELS[0], shape=(2, 5), bounds=(0.0, 1.0)):
    return msgspec.structs.replace(DIGITS, input=InputSchema(list(shape), *bounds), label=label)


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.kind)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-100.0, 120.0), (3.0, 3.0), (0.0, 1e9), (-np.inf, np.inf)])
def test_a_device_would_take_every_one(label, bounds):
    task = task_of(label, bounds=bounds)
    samples = random_samples(task)
    assert not find_misfits(samples.inputs, samples.labels, task.each_input, task)


def test_the_same_task_gives_the_same_samples_and_another_seed_others():
    first, again, other = (random_samples(task_of(), seed) for seed in (0, 0, 1))
    assert first.inputs.tobytes() == again.inputs.tobytes() != other.inputs.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()


def test_inputs_without_telling_bounds_are_standardised_and_others_lie_within_theirs():
    assert random_samples(task_of(bounds=(-np.inf, np.inf))).inputs.std(axis=0) == pytest.approx(1)
    inputs = random_samples(task_of(bounds=(-100.0, 120.0))).inputs
    assert (inputs.mean(), inputs.std()) == pytest.approx((10, 55), rel=0.1)


def test_inputs_whose_scale_is_awaited_are_standardised_whatever_their_bounds():
    task = msgspec.structs.replace(task_of(bounds=(0.0, 2000.0)), scaling=Scaling(Scale.awaiting(1)))
    inputs = random_samples(task).inputs
    assert (inputs.mean(), inputs.std()) == pytest.approx((0, 1), abs=1e-6)


def test_regression_targets_are_standardised_and_follow_from_the_inputs():
    samples = random_samples(task_of(LABELS[2], shape=(64,), bounds=(-np.inf, np.inf)))
    assert samples.labels.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert samples.labels.std(axis=0) == pytest.approx(1)
    fit, *_ = np.linalg.lstsq(samples.inputs, samples.labels, rcond=None)
    assert np.mean((samples.inputs @ fit - samples.labels) ** 2) < 0.5


def test_every_class_occurs():
    assert np.unique(random_samples(task_of()).labels).tolist() == list(range(10))


def test_large_inputs_take_no_more_memory_than_the_limit():
    assert random_samples(task_of(shape=(3, 512, 512))).inputs.size <= MOST_VALUES
