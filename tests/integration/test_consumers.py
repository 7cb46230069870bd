"""A kind that does not ship with edgeflock: known to two tables alone, it travels to an aggregate like any other."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec
import pytest

from broker_coordinator.admission.consumer import Admitted, JournalledConsumer, Offered
from broker_coordinator.consumers import CONSUMERS, UPDATE_CONSUMER, register_consumer
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.encryption import encrypt_payload
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import KINDS, Leaf, Outcome, PayloadKind, encode_payload, register
from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK
from tests.support.device import SigningDevice


class Reading(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How many of something a device has counted."""

    count: int


class ReadingFacts(msgspec.Struct, frozen=True):
    """What is journalled beside it."""

    count: int


READING = PayloadKind(201, Reading, Leaf.UP, 1024, journalled=True)
ENCRYPTED_READING = PayloadKind(202, EncryptedPayload, Leaf.UP, 1024, journalled=True, content=READING)


def admit(offered: Offered[Reading]) -> Admitted[ReadingFacts, int]:
    count = offered.payload.count
    if count < 0:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"{count} things")
    return Admitted(ReadingFacts(count), count)


def total(_: bytes, counts: Sequence[int], _task: TaskDescription) -> int:
    return sum(counts)


def add(state: bytes, more: int, _: TaskDescription) -> bytes:
    return str(int(state or b"0") + more).encode()


READING_CONSUMER = JournalledConsumer(
    READING, ReadingFacts, admit, lambda offered, _: offered.payload.count, lambda _: 2, total, add
)


@pytest.fixture(autouse=True)
def kinds() -> Iterator[None]:
    for kind in (READING, ENCRYPTED_READING):
        register(kind)
    register_consumer(READING_CONSUMER)
    yield
    CONSUMERS.pop(READING, None)
    for kind in (READING, ENCRYPTED_READING):
        del KINDS[kind.number]


@pytest.fixture
def bench(database, bundle) -> Bench:
    return Bench(database, bundle, replace(OPEN, key=KEY))


@pytest.fixture
def kitchen(bench) -> SigningDevice:
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    return device


def reading(device: SigningDevice, sequence: int, count: int, **header) -> bytes:
    return device.sign(READING, encode_payload(Reading(count)), sequence=sequence, **({"task": TASK} | header))


def newest(bench: Bench) -> tuple[int, bytes]:
    aggregate = bench.journal.newest_aggregate(TASK, READING.number)
    return aggregate.number, aggregate.state


def test_payloads_of_a_new_kind_become_aggregates_and_make_no_version(bench, kitchen) -> None:
    bench.handle(kitchen, *(reading(kitchen, sequence, 10 * sequence) for sequence in (1, 2, 3)))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED] * 3
    bench.make_versions()
    assert newest(bench) == (1, b"30")
    assert [row.aggregate for row in bench.journal.payloads()] == [1, 1, None]
    assert [row.read_facts() for row in bench.journal.payloads()] == [
        ReadingFacts(10),
        ReadingFacts(20),
        ReadingFacts(30),
    ]
    assert bench.journal.newest_number(TASK) == 0
    assert bench.journal.update_counts(TASK) == (0, 0)
    assert bench.journal.accepted_counts("kitchen-pi") == {TASK: 3}


@pytest.mark.parametrize("restarted_after", range(5))
def test_restart_at_any_point_loses_no_payload_and_aggregates_none_twice(bench, kitchen, restarted_after) -> None:
    signed = [reading(kitchen, sequence, sequence) for sequence in range(1, 5)]
    for sent, data in enumerate(signed):
        bench.handle(kitchen, data)
        if sent == restarted_after:
            bench.restart()
        bench.make_versions()
    bench.handle(kitchen, *signed)
    bench.make_versions()
    assert newest(bench) == (2, b"10")


def test_updates_and_other_kinds_share_sequence_numbers_and_nothing_else(bench, kitchen) -> None:
    bench.handle(kitchen, kitchen.update(1), reading(kitchen, 2, 7), kitchen.update(3), reading(kitchen, 3, 1))
    assert [receipt.reason for receipt in bench.receipts()] == ["", "", "", Reason.SEQUENCE_REUSED.value]
    bench.handle(kitchen, kitchen.update(4), reading(kitchen, 5, 8))
    bench.make_versions()
    assert newest(bench) == (1, b"15")
    assert [(row.kind, row.aggregate) for row in bench.journal.payloads()] == [
        (6, 1),
        (201, 1),
        (6, 1),
        (6, 1),
        (201, 1),
    ]
    assert [row.sequence for row in bench.journal.updates()] == [1, 3, 4]


def test_checks_that_are_common_to_all_kinds_hold_for_a_new_one(bench, kitchen) -> None:
    stranger = SigningDevice("kitchen-pi")
    bench.handle(
        kitchen,
        reading(stranger, 1, 1),
        reading(kitchen, 1, 1, task="another"),
        reading(kitchen, 2, 1, base_version=9),
        reading(kitchen, 3, -1),
        kitchen.sign(READING, b"\x80", sequence=4, task=TASK),
    )
    reasons = [receipt.reason for receipt in bench.receipts()]
    assert reasons == ["unknown_key", "unknown_task", "unknown_version", "out_of_bounds", "malformed"]
    TaskRegistry(bench.journal.engine).set_paused(TASK, paused=True)
    bench.handle(kitchen, reading(kitchen, 5, 1), reading(kitchen, 3, -1))
    paused, repeated = bench.receipts()
    assert (paused.reason, repeated.reason) == (Reason.TASK_PAUSED.value, Reason.OUT_OF_BOUNDS.value)
    assert "keep the reading" in paused.detail
    assert list(bench.journal.payloads()) == []


def test_encrypted_kind_is_consumed_as_what_is_in_its_box(bench, kitchen) -> None:
    box = encrypt_payload(kitchen.key, KEY.verify_key, 2, encode_payload(Reading(5)))
    bench.handle(kitchen, reading(kitchen, 1, 4), kitchen.sign(ENCRYPTED_READING, box, sequence=2, task=TASK))
    bench.restart()
    bench.make_versions()
    assert newest(bench) == (1, b"9")
    assert [row.kind for row in bench.journal.payloads()] == [READING.number] * 2


def test_payloads_without_a_consumer_stay_in_the_journal_until_there_is_one(bench, kitchen, caplog) -> None:
    bench.handle(kitchen, reading(kitchen, 1, 1), reading(kitchen, 2, 2))
    del CONSUMERS[READING]
    bench.restart()
    bench.handle(kitchen, *(kitchen.update(sequence) for sequence in (3, 4, 5)))
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 1, "others are served"
    assert "payloads_left_waiting" in caplog.text
    register_consumer(READING_CONSUMER)
    bench.restart()
    bench.make_versions()
    assert newest(bench) == (1, b"3")


def test_kind_without_a_consumer_is_refused(bench, kitchen) -> None:
    del CONSUMERS[READING]
    bench.handle(kitchen, reading(kitchen, 1, 1))
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.MALFORMED.value]


def test_kind_has_one_consumer() -> None:
    register_consumer(READING_CONSUMER)
    with pytest.raises(ValueError, match="has a consumer already"):
        register_consumer(JournalledConsumer(READING, ReadingFacts, admit, lambda _o, _f: 0, lambda _: 1, total, add))
    assert CONSUMERS[UPDATE_CONSUMER.kind] is UPDATE_CONSUMER
