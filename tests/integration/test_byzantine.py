"""The benchmark of hostile devices: what they send, and that fleets run under every attack."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.byzantine.__main__ import PLANS, measured
from benchmarks.byzantine.attacks import ATTACKS, DENSE, NOBODY, OF_HONEST, OF_LABELS, Adversary, Known
from benchmarks.byzantine.fleets import Scenario, prepared
from benchmarks.mnist_fleet import unequal_fleet
from broker_coordinator.aggregation.quarantine import Judged, Quarantine, Sent
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.codec import SparseUpdate, decode_update, encode_update
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.quarantine_plan import USUAL_THRESHOLD, QuarantinePlan

SMALL = Scenario(devices=12, hostile=2, updates=40, seed=1)


@pytest.fixture(scope="module")
def field():
    with prepared("digits", None) as ready:
        yield ready


def sent_by(attack: str, task) -> tuple[list[np.ndarray], np.ndarray, TrainingResult]:
    """What twelve honest devices send, and what a hostile one makes of its own."""
    adversary = Adversary(attack, 14, 2, seed=1)
    generator = np.random.default_rng(3)

    def result() -> TrainingResult:
        delta = generator.normal(1, 1, task.parameter_count).astype(np.float32)
        packed = encode_update(delta, task.shapes, DENSE, generator).packed
        return TrainingResult(packed, b"", 10, 5, 10, 0.5)

    honest = [result() for _ in range(12)]
    for device, each in enumerate(honest, 2):
        assert adversary.tamper(device, task, each) is each
    own = result()
    sent = adversary.tamper(1, task, own)
    return [written(each, task) for each in honest], written(own, task), sent


def written(result: TrainingResult, task) -> np.ndarray:
    return decode_update(result.packed, task.shapes).values.astype(np.float64)


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_devices_send_what_the_attack_says(field, attack) -> None:
    task = field.bundle.description
    honest, own, sent = sent_by(attack, task)
    mean, vector = np.mean(honest, axis=0), written(sent, task)
    most = 4 * np.median(np.linalg.norm(honest, axis=1))
    expected = {
        "sign_flip": -own,
        "scaled_sign_flip": -own * min(10, task.largest_delta_norm / np.linalg.norm(own)),
        "inner_product": -mean * min(5, task.largest_delta_norm / np.linalg.norm(mean)),
        "collusion": -mean * min(most, task.largest_delta_norm) / np.linalg.norm(mean),
    }
    if attack in expected:
        np.testing.assert_allclose(vector, expected[attack], rtol=1e-4, atol=1e-5)
    elif attack in OF_HONEST:
        assert not np.allclose(vector, own)
        assert np.linalg.norm(vector) <= task.largest_delta_norm
    else:
        np.testing.assert_array_equal(vector, own)
    assert (sent.samples == MAX_SAMPLES_PER_UPDATE) == (attack == "flip_and_claim")


@pytest.mark.parametrize(("times", "is_suspicious"), [(1.0, False), (0.9, True)])
def test_who_stays_below_what_is_suspicious_is_just_below_it(times, is_suspicious) -> None:
    generator = np.random.default_rng(3)
    honest, own = generator.normal(1, 1, (12, 60)), generator.normal(1, 1, 60)
    row = OF_HONEST["below"](Known(own, honest, 14, 2, generator))
    assert row @ own < 0
    places = np.arange(60)
    known = Quarantine()
    for number, each in enumerate(honest):
        delta = SparseUpdate(places, each.astype(np.float32))
        known.note(Judged(f"pi-{number}", number, Sent(delta.norm(), delta)))
    delta = SparseUpdate(places, row.astype(np.float32))
    hostile, plan = Judged("evil-pi", 100, Sent(delta.norm(), delta)), QuarantinePlan(times * USUAL_THRESHOLD)
    assert bool(known.suspicions([hostile], row.size, plan)) is is_suspicious


def test_hostile_devices_do_as_many_rounds_as_they_are_fast(field) -> None:
    durations = [member.conditions.start_seconds for member in unequal_fleet(SMALL.seed, SMALL.devices)]
    rounds = sum(1 / each for each in durations)
    assert field.rounds_of_hostile(SMALL) == pytest.approx((1 / durations[0] + 1 / durations[1]) / rounds)
    assert field.rounds_of_hostile(replace(SMALL, hostile=0)) == 0
    assert field.rounds_of_hostile(replace(SMALL, hostile=SMALL.devices)) == pytest.approx(1)


def test_fleets_run_under_every_attack_and_what_is_sent_is_admitted(field, capsys) -> None:
    found = measured(field, ["median"], list(ATTACKS), SMALL)["median"]
    assert set(found) == set(ATTACKS)
    assert found[NOBODY] > 20
    assert '"refused": 0' in capsys.readouterr().out
    assert found[OF_LABELS[0]] != found[NOBODY]


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_of_the_table_makes_versions(field, plan) -> None:
    result = field.run(PLANS[plan], "collusion", SMALL)
    assert result.summary.updates == SMALL.updates
    assert result.summary.versions >= 2
    assert not result.summary.set_aside
