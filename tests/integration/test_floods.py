"""Outsiders invent names, and anybody replays messages: what that costs is bounded, and honest devices are served."""

from collections import Counter
from dataclasses import replace

import pytest

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.admission.senders import PENDING_ALLOWANCE
from broker_coordinator.admission.settings import REPEATS_OF_DEVICE, AdmissionSettings
from broker_coordinator.serving import intake
from broker_coordinator.serving.answers import REPEATS
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage import device_registry
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.schema import rejections
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.envelope import digest
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from tests.support.bench import OPEN, Bench
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

CLOSED = AdmissionSettings(
    FLEET, SHARD, False, 100, enrolment_allowance=TokenBucket(1.0, 50), maximum_pending_devices=20
)


def names(bench: Bench, state: DeviceState) -> list[str]:
    return [each.name for each in DeviceRegistry(bench.journal.engine).devices() if each.state is state]


def approved_device(bench: Bench, name: str) -> SigningDevice:
    device = SigningDevice(name)
    DeviceRegistry(bench.journal.engine).approve(name, device.key.verify_key)
    return device


def enrol_many(bench: Bench, prefix: str, count: int) -> list[SigningDevice]:
    strangers = [SigningDevice(f"{prefix}-{number:04d}") for number in range(count)]
    for stranger in strangers:
        bench.handle(stranger, stranger.enrolment())
    return strangers


def test_invented_names_take_no_place_no_rows_and_no_time_from_honest_devices(database, bundle) -> None:
    bench = Bench(database, bundle, CLOSED)
    honest = approved_device(bench, "kitchen-pi")
    strangers = enrol_many(bench, "invented", 200)
    for stranger in strangers:
        bench.handle(stranger, stranger.update(1), stranger.enrolment())
    bench.handle(honest, honest.update(1))
    assert bench.receipts()[-1].outcome is Outcome.ACCEPTED
    assert len(names(bench, DeviceState.PENDING)) == 20
    assert names(bench, DeviceState.APPROVED) == ["kitchen-pi"]
    with bench.journal.engine.connect() as connection:
        rows = connection.execute(rejections.select()).all()
    assert {row.device for row in rows} == {""}, "no row is an outsider's"
    assert {row.reason for row in rows} <= {Reason.RATE_LIMITED, Reason.UNKNOWN_KEY}
    bench.restart()
    assert len(names(bench, DeviceState.PENDING)) == 20
    bench.handle(honest, honest.update(2))
    assert bench.receipts()[-1].outcome is Outcome.ACCEPTED


def test_whoever_enrolled_longest_ago_makes_room_also_after_a_restart(database, bundle) -> None:
    bench = Bench(database, bundle, replace(CLOSED, maximum_pending_devices=3))
    first, second, third = enrol_many(bench, "pi", 3)
    bench.now += PENDING_ALLOWANCE.interval_seconds
    bench.handle(first, first.enrolment())
    bench.restart()
    enrol_many(bench, "new", 1)
    assert names(bench, DeviceState.PENDING) == ["new-0000", first.name, third.name]
    bench.handle(second, second.enrolment())
    assert names(bench, DeviceState.PENDING) == ["new-0000", first.name, second.name]
    strangers = [SigningDevice(f"together-{number}") for number in range(5)]
    bench.coordinator.handle([message for each in strangers for message in messages(each)], bench.now)
    assert names(bench, DeviceState.PENDING) == [f"together-{number}" for number in (2, 3, 4)]
    bench.restart()
    assert len(names(bench, DeviceState.PENDING)) == 3


def messages(device: SigningDevice):
    return [intake.Message(device.up, device.enrolment())]


def test_device_that_was_approved_meanwhile_does_not_make_room(tmp_path, bundle) -> None:
    bench = Bench(tmp_path / "c.db", bundle, replace(CLOSED, maximum_pending_devices=1))
    (early,) = enrol_many(bench, "early", 1)
    DeviceRegistry(bench.journal.engine).approve(early.name, early.key.verify_key)
    enrol_many(bench, "late", 2)
    assert names(bench, DeviceState.APPROVED) == [early.name]
    assert names(bench, DeviceState.PENDING) == ["late-0001"]


def test_revoking_makes_room_and_the_key_stays_known(tmp_path, bundle, monkeypatch) -> None:
    monkeypatch.setattr(device_registry, "MAX_REVOKED_KEYS", 2)
    bench = Bench(tmp_path / "c.db", bundle, AdmissionSettings(FLEET, SHARD, True, 1))
    keys = []
    for number in range(3):
        device = SigningDevice(f"pi-{number}")
        bench.handle(device, device.enrolment())
        assert bench.receipts()[-1].outcome is Outcome.ACCEPTED
        DeviceRegistry(bench.journal.engine).revoke(device.name)
        keys.append(device)
    assert names(bench, DeviceState.REVOKED) == ["pi-1", "pi-2"], "the one that was revoked first is forgotten"
    bench.handle(keys[2], keys[2].enrolment())
    assert bench.receipts()[-1].reason == Reason.REVOKED_KEY


def test_one_message_that_is_replayed_is_answered_twice_in_five_seconds(tmp_path, bundle) -> None:
    bench, device = Bench(tmp_path / "c.db", bundle), SigningDevice("kitchen-pi")
    data = device.update(1)
    bench.handle(device, device.enrolment(), data)
    bench.said()
    begun = bench.now
    answered = 0
    while bench.now < begun + 40.0:
        bench.handle(device, *[data] * 100)
        answered += len(bench.receipts())
    assert answered <= REPEATS.burst + 41 / REPEATS.interval_seconds
    bench.now += 10.0
    bench.handle(device, data)
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED], "an honest device gets its receipt"
    assert bench.journal.overview.update_counts("tiny")[0] == 1


def test_replays_of_old_messages_are_answered_at_a_bounded_rate_and_new_ones_always(tmp_path, bundle) -> None:
    settings = replace(OPEN, repeat_allowance=REPEATS_OF_DEVICE)
    bench, device = Bench(tmp_path / "c.db", bundle, settings), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    old = [device.update(sequence) for sequence in range(1, 301)]
    bench.handle(device, *old)
    bench.restart()
    new = [device.update(301), device.update(302, samples=0)]
    bench.handle(device, *old, *new)
    said = bench.receipts()
    assert [receipt.highest_sequence for receipt in said[-2:]] == [302, 302]
    assert len(said) - 2 == REPEATS_OF_DEVICE.burst
    assert bench.journal.overview.rejections_of("") == {Reason.RATE_LIMITED: 300 - REPEATS_OF_DEVICE.burst}
    bench.now += 10.0
    bench.handle(device, *old[100:], *new)
    answered = {receipt.digest for receipt in bench.receipts()}
    assert answered >= {digest(data) for data in new}, "what was decided last, whatever else was asked"


def test_receipts_that_a_broker_does_not_take_are_dropped_and_given_later(
    tmp_path, bundle, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(intake, "MAX_WAITING_RECEIPTS", 5)
    metrics = Metrics()
    bench, device = Bench(tmp_path / "c.db", bundle, metrics=metrics), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    sent = [device.update(sequence) for sequence in range(1, 21)]
    bench.handle(device, *sent)
    assert len(bench.receipts()) == 5
    assert metrics.registry.get_sample_value("edgeflock_dropped_total", {"what": "receipt"}) == 16
    assert caplog.text.count("receipts_dropped") == 1
    got = Counter[bytes]()
    for data in sent:
        bench.now += 10.0
        bench.handle(device, data)
        got.update(receipt.digest for receipt in bench.receipts())
    assert len(got) == 20


@pytest.mark.parametrize("state", [DeviceState.APPROVED, DeviceState.PENDING])
def test_numbers_of_devices_follow_what_happens(tmp_path, bundle, state) -> None:
    metrics = Metrics()
    settings = replace(CLOSED, open_enrolment=state is DeviceState.APPROVED)
    bench = Bench(tmp_path / "c.db", bundle, settings, metrics=metrics)
    enrol_many(bench, "pi", 30)

    def number(of: DeviceState) -> float | None:
        return metrics.registry.get_sample_value("edgeflock_devices", {"state": of.value})

    assert number(state) == (30 if state is DeviceState.APPROVED else 20)
    DeviceRegistry(bench.journal.engine).revoke("pi-0029")
    bench.coordinator.reload_if_changed()
    assert (number(state), number(DeviceState.REVOKED)) == (29 if state is DeviceState.APPROVED else 19, 1)
