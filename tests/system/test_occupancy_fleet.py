"""Rooms that publish what Zigbee2MQTT would: the shipped agents make samples, learn, and say what they predict."""

from pathlib import Path

from benchmarks.occupancy_fleet import ROOMS, Plan, run_fleet

DATA = Path(__file__).parents[3] / "shared" / "data" / "occupancy"
HOURS = 3
FILLING = 9
"""Readings until a window of ten is full."""


def test_labels_of_an_hour_later_make_samples_of_each_room() -> None:
    figures = run_fleet(Plan("occupancy", DATA, HOURS, versions=1))
    labelled = ROOMS * (60 * (HOURS - 1) - FILLING)
    assert abs(figures.samples - labelled) <= ROOMS  # readings are 59 to 61 s apart
    assert figures.refused.keys() <= {"label_without_sample", "not_predicted"}
    assert figures.refused["label_without_sample"] == ROOMS * FILLING
    assert figures.updates > 0
    assert figures.predictions > 0
