"""Which updates are suspicious: the equation, on dense arrays; and that more than half never are held."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.aggregation.quarantine import (
    DEVICES_REMEMBERED,
    LEAST_OF_COSINE,
    LEAST_OF_NORM,
    TO_DEVIATION,
    UPDATES_LOOKED_AT,
    Judged,
    Quarantine,
    Sent,
)
from fleet_protocol.aggregation_plan import AggregationPlan, check_aggregation
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.quarantine_plan import QuarantinePlan
from tests.support.bundles import write_bundle

SIZE = 40
PLAN = QuarantinePlan()


def rows_of(seed: int, count: int, density: float = 0.5) -> np.ndarray:
    """Unlike updates that have a direction in common, of which so large a share of the entries is not 0."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(1, 0.7, (count, SIZE)).astype(np.float32)
    return np.where(generator.random((count, SIZE)) < density, rows, 0).astype(np.float64)


def sent(row: np.ndarray) -> Sent:
    places = np.flatnonzero(row)
    return Sent(float(np.linalg.norm(row)), SparseUpdate(places, row[places].astype(np.float32)))


def known(rows: np.ndarray) -> Quarantine:
    found = Quarantine()
    for number, row in enumerate(rows):
        found.note(f"pi-{number}", sent(row), suspicious=False)
    return found


def reason(quarantine: Quarantine, row: np.ndarray, device: str = "new-pi", plan: QuarantinePlan = PLAN) -> str:
    found = quarantine.suspicions([Judged(device, sent(row))], SIZE, plan)
    return found[0].reason if found else ""


def z_score(value: float, others: np.ndarray, least: float) -> float:
    median = np.median(others)
    return (value - median) / max(TO_DEVIATION * np.median(np.abs(others - median)), least)


def z_scores(rows: np.ndarray, row: np.ndarray) -> tuple[float, float, float]:
    """Of the norm and the cosine of `row` beside `rows`, and that cosine."""
    norms = np.linalg.norm(rows, axis=1)
    directions = rows / norms[:, None]
    total = directions.sum(axis=0)
    cosines = np.array([each @ (total - each) / np.linalg.norm(total - each) for each in directions])
    cosine = row @ total / np.linalg.norm(row) / np.linalg.norm(total)
    of_norm = z_score(np.linalg.norm(row), norms, LEAST_OF_NORM * np.median(norms))
    return of_norm, z_score(cosine, cosines, LEAST_OF_COSINE), cosine


@given(st.integers(0, 50), st.floats(-4, 4), st.floats(0.1, 8))
def test_suspicion_is_the_equation(seed: int, along: float, threshold: float) -> None:
    rows = rows_of(seed, 9)
    row = rows_of(seed + 100, 1)[0] + along
    of_norm, of_cosine, cosine = z_scores(rows, row)
    margin = min(abs(of_norm - threshold), abs(of_cosine + threshold), abs(cosine))
    if margin > 1e-4:
        expected = of_norm > threshold or (cosine < 0 and of_cosine < -threshold)
        assert bool(reason(known(rows), row, plan=QuarantinePlan(threshold))) == expected


def test_words_say_by_what_it_is_suspicious() -> None:
    rows = rows_of(1, 9)
    assert "above the median" in reason(known(rows), 9 * rows[0])
    assert "below the median" in reason(known(rows), -rows[0])
    assert reason(known(rows), rows_of(2, 1)[0]) == ""


def test_a_device_is_not_compared_with_itself() -> None:
    """What it sent before neither excuses nor accuses it."""
    rows = rows_of(1, 9)
    rows[0] *= -1
    of_norm, of_cosine, _ = z_scores(rows[1:], rows[0])
    assert reason(known(rows), rows[0], "pi-0", QuarantinePlan(-of_cosine - 1e-6))
    assert not reason(known(rows), rows[0], "pi-0", QuarantinePlan(max(-of_cosine, of_norm) + 1e-6))


def test_one_device_counts_once_and_the_last_devices_count() -> None:
    quarantine = known(rows_of(1, DEVICES_REMEMBERED))
    for _ in range(9):
        quarantine.note("pi-0", sent(rows_of(2, 1)[0]), suspicious=False)
    assert len(quarantine.last) == DEVICES_REMEMBERED
    quarantine.note("new-pi", sent(rows_of(3, 1)[0]), suspicious=False)
    assert "pi-1" not in quarantine.last
    assert list(quarantine.last)[-2:] == ["pi-0", "new-pi"]


@pytest.mark.parametrize(("devices", "judges"), [(4, False), (5, True)])
def test_few_devices_say_nothing_of_another(devices: int, judges: bool) -> None:
    rows = rows_of(1, devices)
    assert bool(reason(known(rows), 1e3 * rows[0])) == judges
    assert not reason(known(rows), 1e3 * rows[0], "pi-0"), "four others are left"


def test_updates_that_are_all_zero_or_absurd_are_judged() -> None:
    rows = rows_of(1, 9)
    zeros = np.zeros(SIZE)
    assert not reason(known(rows), zeros)
    assert not reason(known(np.zeros((9, SIZE))), rows[0]), "no scale is known"
    assert "e+2" in reason(known(rows), 1e28 * rows[0])
    huge = Quarantine({f"pi-{n}": Sent(1e48, sent(row).delta) for n, row in enumerate(rows)})
    assert not reason(huge, rows[0])


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=20, max_size=60), st.integers(1, 6))
def test_more_than_half_of_the_last_updates_are_never_held(hostile: list[bool], size: int) -> None:
    """Whatever comes in which order, in buffers of any size."""
    rows = rows_of(1, 6)
    quarantine = known(rows)
    held: list[bool] = [False] * len(rows)
    waiting = [Judged("new-pi", sent(-rows[0] if each else rows[1])) for each in hostile]
    while len(waiting) >= size:
        found = quarantine.suspicions(waiting[:size], SIZE, PLAN)
        for place, each in found.items():
            waiting[place] = Judged("new-pi", waiting[place].sent, each.reason)
        passed = [each for place, each in enumerate(waiting[:size]) if place not in found or not found[place].is_held]
        quarantine.held_back(size - len(passed))
        held += [True] * (size - len(passed))
        waiting = passed + waiting[size:]
        if not found:
            for each in waiting[:size]:
                quarantine.judged.append(bool(each.suspicion))  # peers stay as they are
            held += [False] * size
            waiting = waiting[size:]
        assert 2 * sum(held[-UPDATES_LOOKED_AT:]) <= len(held[-UPDATES_LOOKED_AT:])


def test_it_stops_holding_and_goes_on_by_itself() -> None:
    rows = rows_of(1, 9)
    quarantine = known(rows)
    quarantine.judged.extend([True] * 10)
    assert quarantine.is_overrun
    (found,) = quarantine.suspicions([Judged("new-pi", sent(-rows[0]))], SIZE, PLAN).values()
    assert not found.is_held
    quarantine.judged.extend([False] * 3)
    (found,) = quarantine.suspicions([Judged("new-pi", sent(-rows[0]))], SIZE, PLAN).values()
    assert found.is_held


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_staleness": 0}, "max_staleness = 0 none may count"),
        ({"strategy": "ef21"}, "'ef21' device and coordinator keep the same estimate"),
        ({"strategy": "fedavg", "buffer_size": 4, "max_staleness": 0, "round_seconds": 9.0}, "max_staleness = 0"),
    ],
)
def test_settings_that_leave_it_nothing_to_do_are_refused(settings, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_aggregation(AggregationPlan(quarantine=PLAN, **settings), "task.toml")


def test_tasks_of_which_no_whole_update_is_seen_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[aggregation.quarantine\] compares whole updates.*\[clusters\]"):
        write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(quarantine=PLAN), clusters=ClusterPlan())


def test_a_task_without_it_is_the_same_bytes_as_before(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan())
    assert b"quarantine" not in bundle.files["task.json"]
    held = write_bundle(tmp_path / "held", aggregation=AggregationPlan(quarantine=PLAN))
    assert parse_description(held.files["task.json"]).aggregation.suspects == PLAN
    assert math.isclose(PLAN.threshold, 3.5)
