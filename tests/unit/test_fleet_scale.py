"""A task's scale from what its devices say: whose samples have a part in it, how much, and when there are enough."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.fleet_scale import (
    awaited_columns,
    constant_targets,
    fleet_scale,
    is_enough,
    next_look,
    rescaled,
)
from fleet_protocol.codec import Moments
from fleet_protocol.scaling import Scale, Scaling
from tests.support.bundles import write_bundle

GENERATOR = np.random.default_rng(0)
UNITS = np.array([1e5, 20.0, 0.5], np.float32)


def samples(count: int = 30, *, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Readings in three unlike units, all in others by the factor."""
    return ((1 + shift + 0.1 * GENERATOR.normal(size=(count, 3))) * UNITS * factor).astype(np.float32)


def reports(*tables: np.ndarray) -> dict[str, Moments]:
    return {f"pi-{number}": Moments.of(table) for number, table in enumerate(tables)}


def test_scale_is_that_of_all_samples_together():
    tables = [samples() for _ in range(5)]
    scale = fleet_scale(reports(*tables))
    whole = np.concatenate(tables).astype(np.float64)
    assert scale.means == pytest.approx(whole.mean(axis=0).tolist())
    assert scale.deviations == pytest.approx(whole.std(axis=0).tolist())
    assert (scale.devices, scale.samples, scale.left_out) == (5, 150, {})


@given(st.permutations(range(6)))
def test_order_in_which_devices_report_does_not_matter(order):
    found = reports(samples(factor=1000.0), *(samples(shift=number) for number in range(5)))
    names = list(found)
    assert fleet_scale({names[place]: found[names[place]] for place in order}) == fleet_scale(found)


@pytest.mark.parametrize("factor", [1000.0, 1e-3, 1e9])
def test_device_with_other_units_is_left_out_and_named(factor):
    tables = [samples() for _ in range(4)]
    scale = fleet_scale(reports(*tables, samples(factor=factor)))
    assert list(scale.left_out) == ["pi-4"]
    assert "column 0" in scale.left_out["pi-4"]
    assert scale == msgspec.structs.replace(fleet_scale(reports(*tables)), left_out=scale.left_out)


def test_device_with_one_absurd_reading_is_left_out():
    table = samples()
    table[3, 1] = 1e9
    assert list(fleet_scale(reports(table, *(samples() for _ in range(4)))).left_out) == ["pi-0"]


def test_devices_that_see_different_things_all_have_a_part():
    constant = samples()
    constant[:, 1] = 20.0
    scale = fleet_scale(reports(constant, samples(shift=0.5), samples(shift=-0.8), samples(shift=3), samples(3)))
    assert scale.left_out == {}


def test_devices_that_never_vary_and_lie_far_apart_all_have_a_part():
    tables = [np.full((30, 1), height, np.float32) for height in (0.0, 8.0, 420.0, 1800.0, 2962.0)]
    assert fleet_scale(reports(*tables)).left_out == {}


def test_of_two_devices_nobody_is_left_out():
    assert fleet_scale(reports(samples(), samples(factor=1000.0))).left_out == {}


def test_where_most_devices_are_unusual_in_some_column_nobody_is_left_out():
    tables = [samples() for _ in range(3)]
    for column, table in enumerate(tables):
        table[:, column] *= 1e6
    scale = fleet_scale(reports(*tables))
    assert (scale.left_out, scale.devices) == ({}, 3)


def test_constant_column_keeps_its_unit():
    tables = [samples() for _ in range(3)]
    for table in tables:
        table[:, 2] = 0.3
    scale = fleet_scale(reports(*tables))
    assert scale.deviations[2] == 1.0
    assert scale.means[2] == pytest.approx(0.3)


def test_column_that_nobody_has_is_as_if_it_were_constant():
    tables = [samples() for _ in range(3)]
    for table in tables:
        table[:, 2] = np.nan
    scale = fleet_scale(reports(*tables))
    assert (scale.means[2], scale.deviations[2]) == (0.0, 1.0)


def test_device_that_declares_many_samples_weighs_little_more_than_others():
    honest = [Moments.of(samples()) for _ in range(4)]
    greedy = Moments(np.full(3, 1e6), 1.3 * UNITS.astype(np.float64), np.full(3, 1e6) * np.square(0.1 * UNITS))
    scale = fleet_scale({f"pi-{number}": each for number, each in enumerate([*honest, greedy])})
    assert scale.means == pytest.approx((UNITS * (4 + 1.5 * 1.3) / 5.5).tolist(), rel=0.05)


@pytest.mark.parametrize(
    ("waited", "count", "devices", "enough"),
    [
        (0, 2, 2, False),
        (0, 3, 6, True),
        (0, 3, 7, False),
        (600, 1, 2, True),
        (600, 1, 3, False),
        (3600, 3, 10_000, True),
        (3600, 2, 10_000, False),
        (86_400, 1, 10_000, True),
    ],
)
def test_half_of_the_fleet_is_enough_and_after_a_day_whatever_has_come(waited, count, devices, enough):
    assert is_enough(count, devices, waited) is enough


@given(st.integers(1, 100), st.integers(1, 1000), st.floats(0, 1e5))
def test_there_is_enough_at_the_next_look_and_not_before(count, devices, waited):
    later = next_look(count, devices, waited)
    assert later is not None
    assert is_enough(count, devices, waited) is (later <= 0)
    assert is_enough(count, devices, max(waited, waited + later) + 1e-6)


def test_only_what_is_awaited_is_filled_inputs_before_targets(tmp_path):
    task = write_bundle(tmp_path).description
    ranges = Scale.of_ranges([(0.0, 10.0)] * 8)
    awaiting = msgspec.structs.replace(task, scaling=Scaling(ranges, Scale.awaiting(2)))
    assert awaited_columns(awaiting) == (0, 2)
    scale = fleet_scale(reports(samples()[:, :2]))
    filled = rescaled(awaiting, scale)
    assert filled.scaling == Scaling(ranges, Scale(scale.means, scale.deviations))
    both = msgspec.structs.replace(task, scaling=Scaling(Scale.awaiting(1), Scale.awaiting(1)))
    filled = rescaled(both, scale)
    assert filled.scaling.inputs == Scale(scale.means[:1], scale.deviations[:1])
    assert filled.scaling.targets == Scale(scale.means[1:], scale.deviations[1:])


def test_labels_that_are_all_equal_are_told(tmp_path):
    task = write_bundle(tmp_path).description
    awaiting = msgspec.structs.replace(task, scaling=Scaling(Scale.awaiting(2), Scale.awaiting(3)))
    table = np.column_stack([samples(), np.full(30, 273.15, np.float32), np.full(30, 0.0, np.float32)])[
        :, [0, 4, 2, 3, 1]
    ]
    made = rescaled(awaiting, fleet_scale(reports(table, table, table)))
    assert constant_targets(awaiting, made) == [1]
    assert constant_targets(made, made) == [], "its targets were scaled before"
    classes = msgspec.structs.replace(task, scaling=Scaling(Scale.awaiting(5), None))
    assert constant_targets(classes, rescaled(classes, fleet_scale(reports(table)))) == []
