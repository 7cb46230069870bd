"""The published latency model: its best cuts are found by parts, and no plan of single devices is better."""

import random

import pytest

from benchmarks.published_latency import AS_PUBLISHED, DISCRIMINATOR, GENERATOR, READINGS, devices_of
from benchmarks.split_planning_published import DEVICES, EXTRA, PUBLISHED_SECONDS
from benchmarks.wide_pair.published_fleet import KEPT, PublishedFleet, exact_seconds
from workbench.split_planning.coordinate_search import search_by_coordinates

COUNTS = devices_of(EXTRA, DEVICES)


def test_operations_and_bytes_are_those_of_the_published_widths():
    """By hand: the transposed convolution of 256 to 128 channels on 14 x 14 places, and its output in float32."""
    elements = 128 * 14 * 14
    assert GENERATOR[1].forward == pytest.approx(64 * (2 * 256 * 128 * 16 * 196 + elements * (1 + 8 + 1)) / 1e9)
    assert GENERATOR[1].given == 64 * 4 * elements
    assert DISCRIMINATOR[0].backward == pytest.approx(64 * (2 * 2 * 64 * 16 * 196 + 64 * 196 * (1 + 11 + 3)) / 1e9)
    assert [block.given // 256 for block in DISCRIMINATOR] == [64 * 196, 128 * 49, 128 * 49, 256 * 9, 1]


def test_the_fleet_has_eighty_devices():
    assert sum(COUNTS) == DEVICES
    assert COUNTS == [12, 12, 12, 11, 11, 11, 11]


def test_as_published_the_best_cuts_take_less_than_the_published_seconds():
    assert exact_seconds(AS_PUBLISHED, COUNTS) < PUBLISHED_SECONDS


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.name)
def test_the_search_by_coordinates_finds_the_best_and_no_drawn_plan_of_single_devices_is_better(reading):
    fleet, best = PublishedFleet(reading, COUNTS), exact_seconds(reading, COUNTS)
    found = search_by_coordinates(fleet)
    assert fleet.score(fleet.shares(found)) == pytest.approx(best)
    draw = random.Random(1)
    for _ in range(100):
        plan = tuple(choice if draw.random() < 0.9 else (draw.randrange(len(KEPT)), 0) for choice in found)
        assert fleet.score(fleet.shares(plan)) >= best * (1 - 1e-12)
