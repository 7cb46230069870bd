"""What one device may weigh: how often it sends, how long its deltas are, how many samples it claims."""

import numpy as np

from broker_coordinator.admission.settings import AdmissionSettings
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import UpdatePlan
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from tests.support.bench import Bench
from tests.support.bundles import write_bundle
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


def test_unusually_long_delta_is_refused_until_long_ones_are_usual(database, tmp_path) -> None:
    plan = AggregationPlan(buffer_size=1000, norm_quantile_factor=3.0)
    bench, device = Bench(database, write_bundle(tmp_path / "bounded", aggregation=plan)), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), *(device.update(n, packed=packed(1.0)) for n in range(1, 41)))
    assert len(bench.receipts()) == 41
    bench.restart()
    bench.handle(device, device.update(41, packed=packed(20.0)), device.update(42, packed=packed(1.5)))
    long, usual = bench.receipts()
    assert (long.reason, usual.outcome) == (Reason.OUT_OF_BOUNDS.value, Outcome.ACCEPTED)
    assert "the delta's norm is 20, at most" in long.detail
    bench.handle(device, *(device.update(n, packed=packed(20.0)) for n in range(43, 200)))
    outcomes = [receipt.outcome for receipt in bench.receipts()]
    assert outcomes[:40] == [Outcome.REJECTED] * 40
    assert outcomes[-1] is Outcome.ACCEPTED, "a fleet whose norms have grown is not shut out"


def test_fixed_bound_holds_whatever_is_usual(database, tmp_path) -> None:
    plan = AggregationPlan(buffer_size=1000, norm_quantile_factor=100.0, max_delta_norm=5.0)
    bench, device = Bench(database, write_bundle(tmp_path / "bounded", aggregation=plan)), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), *(device.update(n, packed=packed(4.0)) for n in range(1, 41)))
    bench.handle(device, device.update(41, packed=packed(5.1)))
    assert bench.receipts()[-1].reason == Reason.OUT_OF_BOUNDS.value
