"""What one device may weigh: how often it sends, how long its deltas are, how many samples it claims."""

import numpy as np
import pytest

from broker_coordinator.admission.settings import AdmissionSettings
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

SHAPES = ((4, 8), (4,))


def packed(norm: float) -> bytes:
    delta = np.full(36, norm / 6, np.float32)
    plan = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")
    return encode_update(delta, SHAPES, plan, np.random.default_rng(0)).packed


def test_device_over_its_rate_keeps_its_update_and_others_are_served(database, bundle) -> None:
    settings = AdmissionSettings(FLEET, SHARD, True, 100, allowance=TokenBucket(60.0, 2))
    bench, hasty, patient = Bench(database, bundle, settings), SigningDevice("hasty-pi"), SigningDevice("patient-pi")
    for device in (hasty, patient):
        bench.handle(device, device.enrolment())
    bench.said()
    sent = [hasty.update(sequence) for sequence in (1, 2, 3, 4)]
    bench.handle(hasty, *sent, sent[0])
    receipts = bench.receipts()
    assert [receipt.reason for receipt in receipts] == ["", "", *[Reason.RATE_LIMITED.value] * 2, ""]
    assert "60 updates an hour" in receipts[2].detail
    bench.handle(patient, patient.update(1))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    bench.now += 60.0
    bench.handle(hasty, sent[2], sent[3])
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED, Outcome.REJECTED]
    bench.now += 60.0
    bench.handle(hasty, sent[3])
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    assert [(row.device, row.sequence) for row in bench.journal.updates()] == [
        ("hasty-pi", 1),
        ("hasty-pi", 2),
        ("patient-pi", 1),
        ("hasty-pi", 3),
        ("hasty-pi", 4),
    ]


def test_forged_updates_use_up_nobodys_rate(database, bundle) -> None:
    settings = AdmissionSettings(FLEET, SHARD, True, 100, allowance=TokenBucket(60.0, 1))
    bench, device = Bench(database, bundle, settings), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    forged = bytearray(device.update(1))
    forged[-1] ^= 1
    bench.handle(device, *[bytes(forged)] * 20, device.update(1))
    assert [row.sequence for row in bench.journal.updates()] == [1]


def test_declared_samples_count_up_to_the_cap(database, tmp_path) -> None:
    bundle = write_bundle(tmp_path / "capped", aggregation=AggregationPlan(buffer_size=9, max_samples=50))
    bench, device = Bench(database, bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), device.update(1, samples=20), device.update(2, samples=900_000))
    assert [row.read_facts().samples for row in bench.journal.updates()] == [20, 50]
    assert [row.read_facts().declared for row in bench.journal.updates()] == [0, 900_000]


@pytest.fixture
def fleet(database, tmp_path) -> tuple[Bench, list[SigningDevice]]:
    """Four devices, each with an update of 60 samples and norm 1; the last one is poisoned."""
    bundle = write_bundle(tmp_path / "bounded", aggregation=AggregationPlan(buffer_size=1000))
    bench, devices = Bench(database, bundle), [SigningDevice(f"device-{number}") for number in range(4)]
    for device in devices:
        bench.handle(device, device.enrolment(), device.update(1, packed=packed(1.0), samples=60))
    bench.receipts()
    return bench, devices


@pytest.mark.parametrize("norm", [3.0, 20.0, 99.9])
@pytest.mark.parametrize("restarts", [False, True])
def test_poisoned_update_is_taken_and_weighs_little_more_than_others(fleet, norm, restarts) -> None:
    bench, (*honest, evil) = fleet
    for sequence in range(2, 60):
        bench.now += 1.0
        bench.handle(evil, evil.update(sequence, packed=packed(norm), samples=1_000_000))
    if restarts:
        bench.restart()
    bench.handle(evil, evil.update(60, packed=packed(norm), samples=1_000_000))
    for device in honest:
        bench.handle(device, device.update(2, packed=packed(1.5), samples=70))
    assert {receipt.outcome for receipt in bench.receipts()} == {Outcome.ACCEPTED}
    *_, poisoned, one, two, three = bench.journal.updates()
    assert poisoned.read_facts().samples == 90
    item = poisoned.item(bench.description, ())
    assert (item.samples, item.delta.norm()) == (90, pytest.approx(2.0, rel=1e-6))
    for row in (one, two, three):
        assert (row.read_facts().samples, row.read_facts().scale) == (70, 1.0), "honest devices count as before"


def test_fleet_whose_norms_grow_is_followed(fleet) -> None:
    bench, devices = fleet
    for sequence in range(2, 5):
        for device in devices:
            bench.handle(device, device.update(sequence, packed=packed(10.0)))
    scales = [row.read_facts().scale for row in bench.journal.updates()]
    assert scales[4] == pytest.approx(0.2)
    assert scales[-8:] == [1.0] * 8


def test_fixed_bound_holds_whatever_is_usual(database, tmp_path) -> None:
    plan = AggregationPlan(buffer_size=1000, norm_quantile_factor=100.0, max_delta_norm=5.0)
    bench, device = Bench(database, write_bundle(tmp_path / "bounded", aggregation=plan)), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), *(device.update(n, packed=packed(4.0)) for n in range(1, 41)))
    bench.handle(device, device.update(41, packed=packed(5.1)))
    assert bench.receipts()[-1].reason == Reason.OUT_OF_BOUNDS.value


def test_factor_and_quantile_of_the_task_take_the_place_of_the_usual_ones(database, tmp_path) -> None:
    plan = AggregationPlan(buffer_size=1000, norm_quantile=0.9, norm_quantile_factor=3.0)
    bench = Bench(database, write_bundle(tmp_path / "bounded", aggregation=plan))
    devices = [SigningDevice(f"device-{number}") for number in range(4)]
    for number, device in enumerate(devices):
        bench.handle(device, device.enrolment(), device.update(1, packed=packed(1.0 + number)))
    bench.handle(devices[0], devices[0].update(2, packed=packed(24.0)))
    *_, row = bench.journal.updates()
    assert row.read_facts().scale == pytest.approx(0.5), "three times the longest of the others"


def test_first_update_of_a_task_weighs_no_more_than_a_round_can_have_seen(database, tmp_path) -> None:
    bench, device = Bench(database, write_bundle(tmp_path / "bundle")), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), device.update(1, samples=1_000_000))
    training = bench.description.training
    assert [row.read_facts().samples for row in bench.journal.updates()] == [training.steps * training.batch_size]


def test_updates_of_ef21_are_not_scaled_but_their_estimates_are(database, tmp_path) -> None:
    """Device and coordinator must add the same."""
    plan = AggregationPlan(buffer_size=4, strategy="ef21")
    update = UpdatePlan(0.5, feedback="ef21")
    bench = Bench(database, write_bundle(tmp_path / "ef21", aggregation=plan, update=update))
    devices = [SigningDevice(f"device-{number}") for number in range(4)]
    before = bench.journal.newest_version(TASK).state(bench.description.parameters, {}).weights
    for number, device in enumerate(devices):
        long = packed(1.0 if number else 99.0)
        bench.handle(
            device, device.enrolment(), device.update(1, packed=long, samples=60 if number else 1_000_000, life=1)
        )
    bench.make_versions()
    after = bench.journal.newest_version(TASK).state(bench.description.parameters, {}).weights
    assert [row.item(bench.description, ()).delta.norm() for row in bench.journal.updates()] == pytest.approx(
        [99.0, 1.0, 1.0, 1.0], rel=1e-3
    )
    assert np.linalg.norm(after - before) == pytest.approx((90 * 2 + 3 * 60) / (90 + 3 * 60), rel=1e-3)
