"""Which updates are suspicious: the equation, on dense arrays; and that more than half never are held."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.aggregation.quarantine import (
    DEVICES_REMEMBERED,
    LEAST_OF_COSINE,
    LEAST_OF_NORM,
    TO_DEVIATION,
    Judged,
    Quarantine,
    Sent,
)
from broker_coordinator.aggregation.verdicts import MOST_JUDGED, VERSIONS_LOOKED_AT, Verdicts
from fleet_protocol.aggregation_plan import AggregationPlan, check_aggregation
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import RobustPlan
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
        found.note(judged(f"pi-{number}", row, number))
    return found


def judged(device: str, row: np.ndarray, position: int = 1000) -> Judged:
    return Judged(device, position, sent(row))


def reason(quarantine: Quarantine, row: np.ndarray, device: str = "new-pi", plan: QuarantinePlan = PLAN) -> str:
    found = quarantine.suspicions([judged(device, row)], SIZE, plan)
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


@pytest.mark.parametrize("tiny", [1e-6, 0.05])
def test_devices_that_send_what_is_tiny_while_others_sleep_make_nobody_look_long(tiny: float) -> None:
    """Twenty-eight of the thirty-two that are remembered; whatever is long for the others is suspicious still."""
    rows = rows_of(1, 61, density=1.0)
    quarantine = known(rows[:60])
    for number in range(28):
        quarantine.note(judged(f"evil-{number}", tiny * rows_of(100 + number, 1, density=1.0)[0], 100 + number))
    assert sum(device.startswith("evil") for device in quarantine.last) == 28
    assert reason(quarantine, rows[60], "pi-0") == reason(quarantine, rows[60]) == ""
    assert "of 88 other devices" in reason(quarantine, 9 * rows[60])
    assert "of 87 other devices" in reason(quarantine, 9 * rows[60], "pi-0")
    (found,) = quarantine.suspicions([judged("new-pi", 9 * rows[60])], SIZE, TEMPERS).values()
    norms = np.array(list(quarantine.norms.values()))
    spread = max(TO_DEVIATION * np.median(np.abs(norms - np.median(norms))), LEAST_OF_NORM * np.median(norms))
    longest = np.median(norms) + PLAN.threshold * spread
    assert found.counts == pytest.approx(longest / np.linalg.norm(9 * rows[60]))


def test_norms_are_those_of_the_last_devices_however_many_are_remembered_by_their_updates(monkeypatch) -> None:
    monkeypatch.setattr("broker_coordinator.aggregation.quarantine.NORMS_REMEMBERED", 40)
    quarantine = known(rows_of(1, 50))
    assert list(quarantine.norms) == [f"pi-{number}" for number in range(10, 50)]
    quarantine.begin_anew()
    assert not quarantine.norms | quarantine.last


def test_one_device_counts_once_and_the_last_devices_count() -> None:
    quarantine = known(rows_of(1, DEVICES_REMEMBERED))
    for _ in range(9):
        quarantine.note(judged("pi-0", rows_of(2, 1)[0]))
    assert len(quarantine.last) == DEVICES_REMEMBERED
    quarantine.note(judged("new-pi", rows_of(3, 1)[0]))
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
    sent_huge = {f"pi-{n}": Sent(1e48, sent(row).delta) for n, row in enumerate(rows)}
    huge = Quarantine(sent_huge, dict.fromkeys(sent_huge, 1e48))
    assert not reason(huge, rows[0])


@pytest.mark.parametrize("still", [4, 8])
def test_updates_that_move_nothing_say_nothing_of_what_is_usual(still: int) -> None:
    """However many devices send them: others are judged as without them."""
    moving = rows_of(1, 9)
    rows = np.vstack([np.zeros((still, SIZE)), moving])
    for row in (9 * moving[0], -moving[0], moving[1]):
        assert reason(known(rows), row) == reason(known(moving), row)
    assert reason(known(rows), 9 * moving[0])
    assert not reason(known(rows[: still + 4]), 9 * moving[0]), "four that move say nothing of another"


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=30, max_size=90), st.integers(1, 6))
def test_nothing_is_held_while_more_than_half_of_the_last_devices_are_suspicious(
    hostile: list[tuple[int, bool]], size: int
) -> None:
    """Whatever comes in which order from whom, in buffers of any size."""
    rows = rows_of(1, 6)
    quarantine = known(rows)
    judging = dict(quarantine.last)
    waiting = [
        judged(f"new-{device}", -rows[0] if is_hostile else rows[1], 100 + place)
        for place, (device, is_hostile) in enumerate(hostile)
    ]
    for begin in range(0, len(waiting), size):
        buffer = waiting[begin : begin + size]
        found = quarantine.suspicions(buffer, SIZE, PLAN)
        for place, update in enumerate(buffer):
            quarantine.verdicts.note(update.device, update.position, suspicious=place in found)
            assert place not in found or found[place].is_held != quarantine.is_overrun
        quarantine.last = dict(judging)  # peers stay as they are


@given(st.permutations(range(60)), st.integers(1, 50))
def test_verdicts_are_the_same_in_whatever_order_they_are_noted(order: list[int], devices: int) -> None:
    """So a restart, which reads the journal, finds those of the process before it."""
    updates = [(f"pi-{number % devices}", number, number % 3 == 0) for number in range(60)]
    noted = Verdicts.of(updates[number] for number in order)
    assert list(noted.of_devices.items()) == list(Verdicts.of(updates).of_devices.items())
    assert len(noted.of_devices) == devices
    assert all(each.position >= 60 - len(noted.of_devices) for each in noted.of_devices.values())


def test_verdicts_are_those_since_the_first_update_of_the_last_versions() -> None:
    noted = Verdicts()
    for number in range(3 * VERSIONS_LOOKED_AT):
        noted.version_made(number)
        noted.note(f"pi-{number}", number, suspicious=False)
    assert list(noted.of_devices) == [f"pi-{n}" for n in range(2 * VERSIONS_LOOKED_AT, 3 * VERSIONS_LOOKED_AT)]
    noted.note("late-pi", 0, suspicious=True)  # what is before them counts no more, when it comes late either
    assert not noted.suspicious
    everybody = Verdicts.of((f"pi-{number}", number, False) for number in range(MOST_JUDGED + 1))
    assert "pi-0" not in everybody.of_devices
    assert len(everybody.of_devices) == MOST_JUDGED


@pytest.mark.parametrize(("hostile", "is_overrun"), [(17, False), (60, False), (61, True)])
def test_more_hostile_devices_than_honest_ones_are_needed(hostile: int, is_overrun: bool) -> None:
    """Sixty honest devices in turn, a buffer of ten: what is held makes no version, so nobody honest is forgotten."""
    verdicts, position = Verdicts(), 0
    for version in range(100):
        for _ in range(3):
            for number in range(hostile):
                position += 1
                verdicts.note(f"hostile-{number}", position, suspicious=True)
        verdicts.version_made(position + 1)
        for number in range(10):
            position += 1
            verdicts.note(f"pi-{(10 * version + number) % 60}", position, suspicious=False)
    assert verdicts.are_overrun is is_overrun


@pytest.mark.parametrize("sends", [1, 40])
def test_one_device_never_stops_it_however_often_it_sends(sends: int) -> None:
    """Not even one that nobody has seen before, beside as few as judge at all."""
    rows = rows_of(1, 5)
    updates = [judged("new-pi", -rows[0], 100 + number) for number in range(sends)]
    found = known(rows).suspicions(updates, SIZE, PLAN)
    assert [each.is_held for each in found.values()] == [True] * sends


def test_it_stops_holding_and_goes_on_by_itself() -> None:
    rows = rows_of(1, 9)
    quarantine = known(rows)
    for number in range(10):
        quarantine.verdicts.note(f"other-{number}", 100 + number, suspicious=True)
    assert quarantine.is_overrun
    (found,) = quarantine.suspicions([judged("new-pi", -rows[0])], SIZE, PLAN).values()
    assert not found.is_held
    for number in range(2):
        quarantine.verdicts.note(f"other-{number}", 200 + number, suspicious=False)
    (found,) = quarantine.suspicions([judged("new-pi", -rows[0])], SIZE, PLAN).values()
    assert found.is_held


TEMPERS = QuarantinePlan(action="temper")


def aside(rows: np.ndarray, cosine: float, norm: float) -> np.ndarray:
    """An update of this norm and this cosine with the mean direction of `rows`."""
    along = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)
    along /= np.linalg.norm(along)
    across = np.random.default_rng(5).normal(0, 1, SIZE)
    across -= across @ along * along
    return norm * (cosine * along + math.sqrt(1 - cosine**2) * across / np.linalg.norm(across))


@pytest.mark.parametrize(("cosine", "deviations"), [(0.5, 3.6), (0.0, 40.0), (-0.01, 3.6)])
def test_what_is_merely_long_is_brought_down_to_what_is_not_suspicious(cosine: float, deviations: float) -> None:
    rows = np.random.default_rng(8).normal(0, 1, (9, SIZE))  # nothing in common, so cosines deviate widely
    norms = np.linalg.norm(rows, axis=1)
    deviation = max(TO_DEVIATION * np.median(np.abs(norms - np.median(norms))), LEAST_OF_NORM * np.median(norms))
    row = aside(rows, cosine + 1e-6, np.median(norms) + deviations * deviation)
    quarantine = known(rows)
    quarantine.verdicts.note("other", 100, suspicious=True)
    (found,) = quarantine.suspicions([judged("new-pi", row)], SIZE, TEMPERS).values()
    longest = np.median(norms) + PLAN.threshold * deviation
    assert found.counts == pytest.approx(longest / np.linalg.norm(row))


def test_what_is_far_longer_and_points_away_a_little_shares_one_voice() -> None:
    rows = rows_of(1, 9, density=1.0)
    norms = np.linalg.norm(rows, axis=1)
    quarantine = known(rows)
    quarantine.verdicts.note("other", 100, suspicious=True)
    row = aside(rows, -0.001, 20 * np.median(norms))
    (found,) = quarantine.suspicions([judged("new-pi", row)], SIZE, TEMPERS).values()
    assert found.counts == pytest.approx(np.median(norms) / np.linalg.norm(row) / 2)


@pytest.mark.parametrize("times", [-0.5, -3.0])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_points_away_counts_together_as_one_device_of_the_usual_length(before: int, times: float) -> None:
    rows = rows_of(1, 9)
    quarantine = known(rows)
    for number in range(before):
        quarantine.verdicts.note(f"other-{number}", 100 + number, suspicious=True)
    (found,) = quarantine.suspicions([judged("new-pi", times * rows[0])], SIZE, TEMPERS).values()
    usual, norm = np.median(np.linalg.norm(rows, axis=1)), np.linalg.norm(times * rows[0])
    assert found.counts == pytest.approx(min(1, usual / norm) / (before + 1))
    assert not found.is_held


def test_what_is_tempered_judges_nobody_and_what_is_let_through_does() -> None:
    rows = rows_of(1, 9)
    quarantine = known(rows)
    for number in range(9):
        row = sent(-rows[number])
        quarantine.note(Judged(f"evil-{number}", 100 + number, row, "unlike", is_tempered=True))
    assert reason(quarantine, -rows[0])
    assert reason(quarantine, rows[1]) == reason(known(rows), rows[1]) == ""
    for number in range(10):
        quarantine.verdicts.note(f"other-{number}", 200 + number, suspicious=True)
    (found,) = quarantine.suspicions([judged("new-pi", -rows[0], 300)], SIZE, TEMPERS).values()
    assert found.counts == 1, "most are suspicious"


@pytest.mark.parametrize("row", [-1.0, 0.0])
def test_what_judges_nobody_takes_no_place_of_what_does(row: float) -> None:
    """However many devices send it while those that judge are asleep: what is tempered, and what moves nothing."""
    rows = rows_of(1, 9)
    quarantine = known(rows)
    for number in range(2 * DEVICES_REMEMBERED):
        quarantine.note(replace(judged(f"evil-{number}", row * rows[0], 100 + number), is_tempered=row != 0))
    assert list(quarantine.last) == [f"pi-{number}" for number in range(9)]
    assert reason(quarantine, -rows[0], "evil-0")
    assert not reason(quarantine, rows[1], "pi-1")


@pytest.mark.parametrize("behind", [0.0, 1.0])
def test_nobody_gets_rid_of_a_suspicion_by_what_is_sent_behind_it(behind: float) -> None:
    """Ten that act together send zeros, or what the others send, at once behind what is suspicious."""
    rows = rows_of(1, 9)
    quarantine = known(rows)
    counts = []
    for turn in range(3):
        for number in range(10):
            position = 100 * (turn + 1) + 2 * number
            update = judged(f"evil-{number}", -rows[0], position)
            (found,) = quarantine.suspicions([update], SIZE, TEMPERS).values()
            counts.append(found.counts)
            quarantine.note(replace(update, suspicion=found.reason, is_tempered=found.counts < 1))
            quarantine.note(judged(f"evil-{number}", behind * rows_of(50 + number, 1)[0], position + 1))
    assert sum(counts[10:20]) == sum(counts[20:]) <= 1 + 1e-9
    assert quarantine.verdicts.suspicious == 0, "by what each sent last, nobody is"


def test_a_suspicion_is_over_once_no_version_looked_at_is_as_old() -> None:
    verdicts = Verdicts.of([("evil-pi", 1, True), ("evil-pi", 50, False), ("pi-0", 60, True)])
    assert (verdicts.suspicious, verdicts.suspected) == (1, 2)
    for position in range(2, 2 + VERSIONS_LOOKED_AT):
        verdicts.version_made(position)
    assert (verdicts.suspicious, verdicts.suspected) == (1, 1)


def test_of_large_updates_fewer_devices_are_remembered(monkeypatch) -> None:
    rows = rows_of(1, 9, density=1.0)
    monkeypatch.setattr("broker_coordinator.aggregation.quarantine.VALUES_REMEMBERED", 3 * SIZE)
    assert list(known(rows).last) == ["pi-6", "pi-7", "pi-8"]
    monkeypatch.setattr("broker_coordinator.aggregation.quarantine.VALUES_REMEMBERED", 1)
    assert list(known(rows).last) == ["pi-8"]


@pytest.mark.parametrize(
    ("plan", "action"),
    [
        (AggregationPlan(), "temper_on_harm"),
        (AggregationPlan(strategy="ca2fl", max_staleness=0), "temper_on_harm"),
        (AggregationPlan(quarantine=QuarantinePlan()), "hold"),
        (AggregationPlan(quarantine=QuarantinePlan(action="off")), None),
        (AggregationPlan(strategy="aced", robust=RobustPlan("median")), None),
        (AggregationPlan(strategy="fedavg", buffer_size=4, max_staleness=0, round_seconds=9.0), None),
    ],
)
def test_a_task_that_does_not_say_it_tempers_where_it_can(tmp_path, plan, action) -> None:
    suspects = parse_description(write_bundle(tmp_path / "bundle", aggregation=plan).files["task.json"]).suspects
    assert (suspects and suspects.action) == action


def test_a_task_whose_single_updates_are_not_seen_tempers_nothing(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(), clusters=ClusterPlan())
    assert bundle.description.suspects is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_staleness": 0}, "max_staleness = 0 none may count"),
        ({"quarantine": QuarantinePlan(2.0, action="off")}, "has a threshold, and with action"),
        ({"strategy": "ef21"}, "'ef21' device and coordinator keep the same estimate"),
        ({"strategy": "fedavg", "buffer_size": 4, "max_staleness": 0, "round_seconds": 9.0}, "max_staleness = 0"),
    ],
)
def test_settings_that_leave_it_nothing_to_do_are_refused(settings, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_aggregation(AggregationPlan(**{"quarantine": PLAN, **settings}), "task.toml")


def test_tasks_of_which_no_whole_update_is_seen_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[aggregation.quarantine\] compares whole updates.*\[clusters\]"):
        write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(quarantine=PLAN), clusters=ClusterPlan())


def test_a_task_without_it_is_the_same_bytes_as_before(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan())
    assert b"quarantine" not in bundle.files["task.json"]
    held = write_bundle(tmp_path / "held", aggregation=AggregationPlan(quarantine=PLAN))
    assert parse_description(held.files["task.json"]).aggregation.suspects == PLAN
    assert math.isclose(PLAN.threshold, 3.5)
