"""A round of a task that awaits its scale: what is measured, sent once, and said of samples unlike the fleet's."""

import msgspec
import numpy as np
import pytest

from bundle_runtime.samples import Samples
from edge_agent.core.round_participation import why_not_asked
from edge_agent.producers import goes_back, produce
from edge_agent.training.statistics import in_other_units, measure, unlike_the_fleet, without_absurd
from fleet_protocol.codec import decode_moments
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.kinds import STATISTICS, Statistics, decode_payload
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.scaling import DEVIATION_OF_CONSTANTS, Scale, Scaling
from fleet_protocol.task_description import TaskDescription
from tests.support.bundles import write_bundle

INPUTS = np.arange(40, dtype=np.float32).reshape(5, 8)
TARGETS = np.array([[1], [2], [3], [4], [90]], np.float32)
SAMPLES = Samples(INPUTS, TARGETS, newest=17)


@pytest.fixture
def task(tmp_path) -> TaskDescription:
    description = write_bundle(tmp_path).description
    return msgspec.structs.replace(description, label=LabelSchema(kind="regression", values=1))


def with_scaling(task: TaskDescription, inputs: Scale | None, targets: Scale | None) -> TaskDescription:
    return msgspec.structs.replace(task, scaling=Scaling(inputs, targets))


def test_only_awaited_columns_are_measured_inputs_before_targets(task):
    both = measure(SAMPLES, with_scaling(task, Scale.awaiting(8), Scale.awaiting(1)))
    found = decode_moments(both.statistics, 9)
    assert found.means.tolist() == [*INPUTS.mean(axis=0).tolist(), 20.0]
    assert found.counts.tolist() == [5.0] * 9
    assert (both.trained_through, both.samples, both.steps) == (17, 5, 0)
    ranges = Scale.of_ranges([(0.0, 40.0)] * 8)
    assert decode_moments(measure(SAMPLES, with_scaling(task, ranges, Scale.awaiting(1))).statistics, 1).means == [20.0]


def test_inputs_of_several_dimensions_are_one_column(task):
    pictures = Samples(INPUTS.reshape(5, 2, 4), np.zeros(5, np.int64))
    of_pictures = msgspec.structs.replace(task, input=InputSchema([2, 4], 0.0, 40.0))
    found = decode_moments(measure(pictures, with_scaling(of_pictures, Scale.awaiting(1), None)).statistics, 1)
    assert (found.counts, found.means) == ([40.0], [19.5])


def test_statistics_are_all_that_such_a_round_sends_and_a_refusal_drops_them(task):
    task = with_scaling(task, Scale.awaiting(8), None)
    ((kind, payload),) = produce(task, measure(SAMPLES, task))
    assert kind is STATISTICS
    assert decode_payload(payload, Statistics).samples == 5
    assert not goes_back(STATISTICS)


def test_device_sends_its_statistics_once_and_then_waits_for_the_scale(task):
    awaiting = with_scaling(task, Scale.awaiting(8), None)
    assert why_not_asked(awaiting, 0, "pi-1", EVERYONE, None) is None
    assert "awaits its scale" in why_not_asked(awaiting, 0, "pi-1", EVERYONE, 0)
    assert why_not_asked(awaiting, 3, "pi-1", EVERYONE, 0) is None, "of an earlier bundle"
    assert why_not_asked(with_scaling(task, Scale([0.0] * 8, [1.0] * 8), None), 0, "pi-1", EVERYONE, 0) is None


def test_samples_unlike_the_fleets_are_told_with_both_means(task):
    fleet = Scale(INPUTS.mean(axis=0).tolist(), [10.0] * 8)
    assert unlike_the_fleet(SAMPLES, with_scaling(task, fleet, Scale([20.0], [30.0]))) == ""
    in_other_units = Samples(INPUTS * 1000, TARGETS)
    words = unlike_the_fleet(in_other_units, with_scaling(task, fleet, None))
    assert words.startswith("input 0 has the mean 1.6e+04 on this device, 16 in the fleet")
    words = unlike_the_fleet(SAMPLES, with_scaling(task, None, Scale([2e4], [30.0])))
    assert words.startswith("label 0 has the mean 20 on this device, 2e+04 in the fleet")
    assert unlike_the_fleet(SAMPLES, with_scaling(task, None, None)) == ""


def test_column_that_is_constant_in_the_fleet_may_be_anything(task):
    fleet = Scale([0.0] * 8, [DEVIATION_OF_CONSTANTS] * 8)
    assert unlike_the_fleet(Samples(INPUTS * 1000, TARGETS), with_scaling(task, fleet, None)) == ""


def test_column_that_a_device_never_has_is_not_unlike(task):
    lacking = INPUTS.copy()
    lacking[:, 3] = np.nan
    fleet = Scale([1000.0 if column == 3 else value for column, value in enumerate(INPUTS.mean(axis=0))], [10.0] * 8)
    assert unlike_the_fleet(Samples(lacking, TARGETS), with_scaling(task, fleet, None)) == ""


def column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(-1, 1)


USUAL = np.linspace(-1, 1, 48)


@pytest.mark.parametrize("absurd", [1e9, -9999.0, 3e38])
@pytest.mark.parametrize("far", [1, 3])
def test_few_absurd_values_hardly_widen_what_is_measured(absurd, far):
    found = without_absurd(column(np.append(USUAL, [absurd] * far)))
    assert found[:48].tolist() == column(USUAL).tolist()
    assert np.abs(found).max() < 8


def test_values_are_absurd_only_where_they_are_few_and_the_others_vary():
    for values in (np.append(USUAL, [1e9] * 12), np.append(np.zeros(48), 1e9), np.array([1.0, 2, 3, 4, 90]), 3 * USUAL):
        assert without_absurd(column(values)).tolist() == column(values).tolist()


def test_normally_distributed_values_and_missing_ones_stay_as_they_are():
    values = np.random.default_rng(5).standard_normal((1000, 3)).astype(np.float32)
    values[::7, 0] = np.nan
    values[:, 2] = np.nan
    assert np.array_equal(without_absurd(values), values, equal_nan=True)


def test_device_with_one_absurd_reading_trains_and_is_told_of_it(task):
    fleet = with_scaling(task, Scale([0.0] * 8, [0.6] * 8), None)
    inputs = np.tile(column(USUAL), (1, 8))
    inputs[3, 2] = 1e9
    samples = Samples(inputs, np.zeros((48, 1), np.float32))
    assert in_other_units(samples, fleet) == ""
    assert unlike_the_fleet(samples, fleet).startswith("input 2 has the mean 2.083e+07 on this device, 0 in the fleet")
    assert in_other_units(Samples(inputs + 1000, samples.labels), fleet).startswith("input 0 has the mean 1000 on")


def test_device_with_a_larger_unit_trains_and_is_told_so(task):
    fleet = with_scaling(task, Scale([5.0] * 8, [3.0] * 8), None)
    usual = np.tile(column(3 * USUAL + 5), (1, 8))
    labels = np.zeros((48, 1), np.float32)
    assert unlike_the_fleet(Samples(usual, labels), fleet) == ""
    thousandth = Samples(usual / 1000, labels)
    assert in_other_units(thousandth, fleet) == ""
    assert unlike_the_fleet(thousandth, fleet).startswith("input 0 deviates by 0.001769 from its mean 0.005 on this")


@pytest.mark.parametrize("steady", [np.zeros(48), np.full(48, 5.0), 5 + 0.01 * USUAL])
def test_device_whose_readings_hardly_vary_has_no_other_unit(task, steady):
    fleet = with_scaling(task, Scale([5.0] * 8, [3.0] * 8), None)
    samples = Samples(np.tile(column(steady), (1, 8)), np.zeros((48, 1), np.float32))
    assert unlike_the_fleet(samples, fleet) == ""
