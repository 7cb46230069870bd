"""Kinds that do not ship with edgeflock (tests/kinds): known to a few tables alone, they travel like any other."""

import math
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from broker_coordinator.admission.consumer import Admitted
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.consumers import CONSUMERS, UPDATE_CONSUMER, register_consumer
from broker_coordinator.serving.answers import UNVERIFIED_RECEIPT_INTERVAL_SECONDS
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from edge_agent.core.delivery import Remedy, remedy
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import encode_update
from fleet_protocol.encryption import encrypt_payload
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import KINDS, UPDATE, EncryptedPayload, Leaf, Outcome, PayloadKind, encode_payload, register
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.update_plan import UpdatePlan
from tests.kinds.delta.kind import DELTA, Delta
from tests.kinds.installed import installed
from tests.kinds.round_report.consumer import MAX_STEPS, ROUND_REPORT_CONSUMER, RoundFacts, read_state
from tests.kinds.round_report.kind import ENCRYPTED_ROUND_REPORT, ROUND_REPORT, RoundReport
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import PARAMETERS, TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed

BUFFER = 2
SHAPES = [parameter.shape for parameter in PARAMETERS]
PLAN = AggregationPlan(buffer_size=BUFFER, max_staleness=2, max_delta_norm=100.0, averaged_versions=1)


@pytest.fixture(autouse=True)
def kinds() -> Iterator[None]:
    with installed():
        yield


@pytest.fixture
def versions_from() -> str:
    return UPDATE.name


@pytest.fixture
def bundle(tmp_path, versions_from):
    return write_bundle(tmp_path / "bundle", aggregation=PLAN, versions_from=versions_from)


@pytest.fixture
def bench(database, bundle) -> Bench:
    return Bench(database, bundle, replace(OPEN, keys=(KEY,)))


@pytest.fixture
def kitchen(bench) -> SigningDevice:
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    return device


def report(device: SigningDevice, sequence: int, trained_through: int = 0, *, steps: int = 1, **header) -> bytes:
    payload = encode_payload(RoundReport(steps, trained_through))
    return device.sign(ROUND_REPORT, payload, sequence=sequence, **({"task": TASK} | header))


def delta(device: SigningDevice, sequence: int, *, samples: int = 8, **header) -> bytes:
    values = np.random.default_rng(sequence).standard_normal(36).astype(np.float32)
    packed = encode_update(values, SHAPES, UpdatePlan(0.5), np.random.default_rng(1)).packed
    return device.sign(DELTA, encode_payload(Delta(samples, packed)), sequence=sequence, **({"task": TASK} | header))


def newest(bench: Bench) -> tuple[int, dict[str, list[int]]]:
    aggregate = bench.journal.newest_aggregate(TASK, ROUND_REPORT.number)
    return aggregate.number, read_state(aggregate.state)


def test_payloads_of_a_new_kind_become_aggregates_and_make_no_version(bench, kitchen) -> None:
    bench.handle(kitchen, *(report(kitchen, sequence, 10 * sequence, steps=sequence) for sequence in (1, 2, 3)))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED] * 3
    bench.make_versions()
    assert newest(bench) == (1, {"kitchen-pi": [10, 20]})
    assert [row.aggregate for row in bench.journal.payloads()] == [1, 1, None]
    assert [row.read_facts() for row in bench.journal.payloads()] == [RoundFacts(1), RoundFacts(2), RoundFacts(3)]
    assert bench.journal.newest_number(TASK) == 0
    assert bench.journal.overview.update_counts(TASK) == (0, 0)
    assert bench.journal.overview.accepted_counts("kitchen-pi") == {TASK: 3}


@pytest.mark.parametrize("restarted_after", range(5))
def test_restart_at_any_point_loses_no_payload_and_aggregates_none_twice(bench, kitchen, restarted_after) -> None:
    signed = [report(kitchen, sequence, sequence) for sequence in range(1, 5)]
    for sent, data in enumerate(signed):
        bench.handle(kitchen, data)
        if sent == restarted_after:
            bench.restart()
        bench.make_versions()
    bench.handle(kitchen, *signed)
    bench.make_versions()
    assert newest(bench) == (2, {"kitchen-pi": [1, 2, 3, 4]})


def test_updates_and_other_kinds_share_sequence_numbers_and_nothing_else(bench, kitchen) -> None:
    bench.handle(kitchen, kitchen.update(1), report(kitchen, 2, 7), kitchen.update(3), report(kitchen, 3, 1))
    assert [receipt.reason for receipt in bench.receipts()] == ["", "", "", Reason.SEQUENCE_REUSED.value]
    bench.handle(kitchen, kitchen.update(4), report(kitchen, 5, 8))
    bench.make_versions()
    assert newest(bench) == (1, {"kitchen-pi": [7, 8]})
    held = [(row.kind, row.aggregate) for row in bench.journal.payloads()]
    assert held == [
        (UPDATE.number, 1),
        (ROUND_REPORT.number, 1),
        (UPDATE.number, 1),
        (UPDATE.number, None),
        (ROUND_REPORT.number, 1),
    ]
    assert [row.sequence for row in bench.journal.updates()] == [1, 3, 4]


def test_payload_of_a_kind_unknown_here_is_kept_by_its_device_until_the_coordinator_is_updated(bench, kitchen) -> None:
    """A refusal that is not journalled must not be one that the device takes back: a replay would count it twice."""
    signed = report(kitchen, 1, 7)
    consumer, kind = CONSUMERS.pop(ROUND_REPORT), KINDS.pop(ROUND_REPORT.number)
    bench.handle(kitchen, signed)
    KINDS[kind.number] = kind
    bench.handle(kitchen, signed)
    bench.now += UNVERIFIED_RECEIPT_INTERVAL_SECONDS
    bench.handle(kitchen, signed)
    refusals = bench.receipts()
    assert {remedy(receipt) for receipt in refusals} == {Remedy.KEEP}
    assert {receipt.reason for receipt in refusals} == {Reason.UNKNOWN_KIND.value}
    assert len(refusals) == 2, "it is not verified, so receipts are few"
    CONSUMERS[kind] = consumer
    bench.handle(kitchen, signed)
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    assert len(list(bench.journal.payloads())) == 1


def test_checks_that_are_common_to_all_kinds_hold_for_a_new_one(bench, kitchen) -> None:
    stranger = SigningDevice("kitchen-pi")
    bench.handle(
        kitchen,
        report(stranger, 1),
        report(kitchen, 1, task="another"),
        report(kitchen, 2, base_version=9),
        report(kitchen, 3, steps=MAX_STEPS + 1),
        kitchen.sign(ROUND_REPORT, b"\x80", sequence=4, task=TASK),
        report(kitchen, 5, MAX_SEQUENCE + 1),
    )
    reasons = [receipt.reason for receipt in bench.receipts()]
    assert reasons == ["unknown_key", "unknown_task", "unknown_version", "out_of_bounds", "malformed", "malformed"]
    TaskRegistry(bench.journal.engine).set_paused(TASK, paused=True)
    bench.handle(kitchen, report(kitchen, 6), report(kitchen, 3, steps=MAX_STEPS + 1))
    paused, repeated = bench.receipts()
    assert (paused.reason, repeated.reason) == (Reason.TASK_PAUSED.value, Reason.OUT_OF_BOUNDS.value)
    assert "keep the round report" in paused.detail
    assert list(bench.journal.payloads()) == []


def test_encrypted_kind_is_consumed_as_what_is_in_its_box(bench, kitchen) -> None:
    box = encrypt_payload(kitchen.key, KEY.verify_key, 2, encode_payload(RoundReport(1, 5)))
    encrypted = kitchen.sign(ENCRYPTED_ROUND_REPORT, box, sequence=2, task=TASK)
    bench.handle(kitchen, report(kitchen, 1, 4), encrypted)
    bench.restart()
    bench.make_versions()
    assert newest(bench) == (1, {"kitchen-pi": [4, 5]})
    assert [row.kind for row in bench.journal.payloads()] == [ROUND_REPORT.number] * 2


def test_payloads_without_a_consumer_stay_in_the_journal_until_there_is_one(bench, kitchen, caplog) -> None:
    bench.handle(kitchen, report(kitchen, 1, 1), report(kitchen, 2, 2))
    del CONSUMERS[ROUND_REPORT]
    bench.restart()
    bench.handle(kitchen, *(kitchen.update(sequence) for sequence in (3, 4)))
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 1, "others are served"
    assert "payloads_left_waiting" in caplog.text
    register_consumer(ROUND_REPORT_CONSUMER)
    bench.restart()
    bench.make_versions()
    assert newest(bench) == (1, {"kitchen-pi": [1, 2]})


def test_kind_has_a_number_and_a_name_of_its_own() -> None:
    same_name = type("RoundReport", (msgspec.Struct,), {}, frozen=True, array_like=True)
    for payload, number in ((RoundReport, ROUND_REPORT.number), (same_name, 250)):
        with pytest.raises(ValueError, match="already"):
            register(PayloadKind(number, payload, Leaf.UP, 1024))
    box_alone = PayloadKind(251, EncryptedPayload, Leaf.UP, 1024, content=PayloadKind(252, Stray, Leaf.UP, 1024))
    with pytest.raises(ValueError, match="first"):
        register(box_alone)
    with pytest.raises(ValueError, match="before its consumer"):
        register_consumer(replace(ROUND_REPORT_CONSUMER, kind=box_alone))


def test_facts_that_the_journal_cannot_hold_are_refused(bench, kitchen) -> None:
    admitted = replace(
        ROUND_REPORT_CONSUMER, facts=Reading, admit=lambda offered: Admitted(Reading(math.nan), offered.payload)
    )
    CONSUMERS[ROUND_REPORT] = admitted
    bench.handle(kitchen, report(kitchen, 1))
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.NOT_FINITE.value]


class Stray(msgspec.Struct):
    pass


class Reading(msgspec.Struct):
    value: float


def test_kind_has_one_consumer() -> None:
    register_consumer(ROUND_REPORT_CONSUMER)
    with pytest.raises(ValueError, match="has a consumer already"):
        register_consumer(replace(ROUND_REPORT_CONSUMER))
    assert CONSUMERS[UPDATE_CONSUMER.kind] is UPDATE_CONSUMER


from_deltas = pytest.mark.parametrize("versions_from", [DELTA.name])


@from_deltas
@pytest.mark.parametrize("restarted_after", range(7))
def test_another_kind_makes_versions_bit_for_bit_the_same_after_a_restart(bench, kitchen, restarted_after) -> None:
    for sequence in range(1, 8):
        base = max(0, (sequence - 1) // BUFFER - sequence % 2)
        bench.handle(kitchen, delta(kitchen, sequence, samples=3 * sequence, base_version=base))
        if sequence - 1 == restarted_after:
            bench.restart()
        bench.make_versions()
    assert [row.aggregate for row in bench.journal.updates(TASK)] == [1, 1, 2, 2, 3, 3, None]
    assert [row.staleness for row in bench.journal.updates(TASK)] == [0, 0, 1, 0, 1, 0, 1]
    assert versions_replayed(bench.journal, TASK) == 3
    assert bench.journal.overview.update_counts(TASK) == (7, 1)
    summary = bench.journal.overview.version_summaries(TASK, 1)[0]
    assert (summary.updates, summary.mean_loss, summary.mean_staleness) == (2, None, 0.5)


@from_deltas
def test_weights_are_what_the_kinds_own_rule_makes_of_its_deltas(bench, bundle, kitchen) -> None:
    bench.handle(kitchen, *(delta(kitchen, sequence, samples=sequence) for sequence in (1, 2, 3, 4)))
    bench.make_versions()
    zero, one, two = (each.state(PARAMETERS, {}).weights for each in bench.journal.versions(TASK))
    deltas = np.zeros((4, one.size), np.float32)
    for row, whole in zip(bench.journal.updates(TASK), deltas, strict=True):
        _, sparse = row.item(bundle.description, ())
        sparse.add_to(whole)
    np.testing.assert_allclose(one, zero + (deltas[0] + 2 * deltas[1]) / 3, rtol=1e-6)
    np.testing.assert_allclose(two, one + (3 * deltas[2] + 4 * deltas[3]) / 10, rtol=1e-6)


@from_deltas
def test_staleness_within_one_batch_counts_what_will_become_versions(bench, kitchen) -> None:
    bench.handle(
        kitchen, *(delta(kitchen, sequence) for sequence in range(1, 6)), report(kitchen, 6), delta(kitchen, 7)
    )
    assert [row.staleness for row in bench.journal.updates(TASK)] == [0, 0, 1, 1, 2, 2]
    bench.make_versions()
    bench.handle(kitchen, delta(kitchen, 8))
    assert [receipt.reason for receipt in bench.receipts()] == [""] * 7 + [Reason.TOO_STALE.value]


@from_deltas
@pytest.mark.parametrize("restarts", [False, True])
def test_what_a_kind_remembers_outlives_rollback_and_retention(database, bundle, kitchen, restarts) -> None:
    bench = Bench(database, bundle, replace(OPEN, keys=(KEY,)), retention=Retention(versions=1, every=0, envelopes=1))
    for sequence in range(1, 13):
        bench.handle(kitchen, delta(kitchen, sequence, base_version=bench.journal.newest_number(TASK)))
        bench.make_versions()
        if sequence == 6:
            VersionRegistry(bench.journal.engine).roll_back(TASK, 2)
        if restarts:
            bench.restart()
    assert bench.journal.history(TASK).rollbacks == {4: 2}
    assert all(row.envelope is not None for row in bench.journal.updates(TASK)), "each is recalled at a start"
    assert versions_replayed(bench.journal, TASK) > 0


@pytest.mark.parametrize("versions_from", [UPDATE.name, DELTA.name])
def test_only_the_kind_that_a_task_names_makes_its_versions(bench, kitchen, versions_from) -> None:
    updates, deltas = [kitchen.update(1), kitchen.update(2)], [delta(kitchen, 3), delta(kitchen, 4)]
    bench.handle(kitchen, *updates, *deltas)
    bench.make_versions()
    right, wrong = ["", ""], [Reason.MALFORMED.value] * 2
    assert [receipt.reason for receipt in bench.receipts()] == (
        right + wrong if versions_from == UPDATE.name else wrong + right
    )
    assert bench.journal.overview.update_counts(TASK) == (2, 0)
    assert len(list(bench.journal.payloads())) == 2, "nothing waits for a version that never comes"


def test_task_whose_kind_makes_no_versions_here_is_not_published(bench, tmp_path) -> None:
    for versions_from in (ROUND_REPORT.name, "sung update"):
        bundle = write_bundle(tmp_path / versions_from, task="another", versions_from=versions_from)
        with pytest.raises(ConfigurationError, match=f"kind '{versions_from}', of which nothing here makes versions"):
            TaskRegistry(bench.journal.engine).publish(bundle)
