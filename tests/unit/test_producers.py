"""Kinds that do not ship with edgeflock (tests/kinds) travel from a finished round to their receipts like any other."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from edge_agent import producers
from edge_agent.core.delivery import FIRST_RECEIPT_SECONDS
from edge_agent.core.outbox import SpooledPayload
from edge_agent.producers import given_back, makes_versions_of, produce
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol import kinds
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import Outcome, Receipt, Update, decode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from fleet_protocol.task_description import TaskDescription
from tests.kinds.delta.kind import DELTA, Delta
from tests.kinds.installed import installed
from tests.kinds.round_report.kind import ENCRYPTED_ROUND_REPORT, ROUND_REPORT, RoundReport
from tests.kinds.round_report.producer import ROUND_REPORT_PRODUCER
from tests.support.jumping_clock import run
from tests.unit.test_feedback import DIGITS

BUNDLE = "0f" * 32
RESULT = TrainingResult(b"packed", b"residual", samples=32, steps=40, trained_through=40, loss=0.25)


@pytest.fixture
def others() -> Iterator[None]:
    """The kinds of tests/kinds, until the test is over."""
    with installed():
        yield


class Device:
    """A real database, key and postbox."""

    def __init__(self, folder, *, encrypt: bool = False) -> None:
        self.folder, self.encrypt = folder, encrypt
        self.key = SigningKey(bytes(range(32)))
        self.published: list[bytes] = []
        self.start()

    def start(self) -> None:
        coordinator = write_verify_key(self.key.verify_key)
        self.identity = Identity("home", "0", "pi", self.key, coordinator, encrypt_updates=self.encrypt)
        self.database = DeviceDatabase(self.folder / "agent.db")
        self.postbox = Postbox(self.database, self.identity.sign_row, self._publish)

    async def _publish(self, envelope: bytes) -> None:
        self.published.append(envelope)

    def finish_round(self, task: TaskDescription = DIGITS) -> list:
        payloads = tuple(
            SpooledPayload(*self.identity.address(kind), payload) for kind, payload in produce(task, RESULT)
        )
        return self.database.spool(
            SpooledRound("digits", BUNDLE, 7, 40, payloads, RESULT.residual), self.identity.sign_row
        )

    def deliver(self, seconds: float = 1.0) -> None:
        async def connected() -> None:
            delivery = asyncio.create_task(self.postbox.deliver())
            await asyncio.sleep(seconds)
            delivery.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await delivery

        run(connected())


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path)
    yield device
    device.database.close()


def accepted(envelope: bytes) -> Receipt:
    return Receipt(digest(envelope), Outcome.ACCEPTED, "", "", 0, 1)


def test_round_spools_both_payloads_with_numbers_of_their_own_and_delivers_them(others, device):
    rows = device.finish_round()
    assert [(row.sequence, row.kind) for row in rows] == [(1, 6), (2, ROUND_REPORT.number)]
    device.database.close()
    device.start()
    device.deliver()
    update, report = (read_envelope(envelope, MAX_CONTROL_BYTES) for envelope in device.published)
    assert (update.header.sequence, report.header.sequence) == (1, 2)
    assert decode_payload(update.payload, Update).packed == b"packed"
    assert report.header.kind is ROUND_REPORT
    assert decode_payload(report.payload, RoundReport) == RoundReport(40, 40)
    for envelope in device.published:
        assert device.postbox.receive(accepted(envelope))
    assert device.database.waiting() == 0


def test_rejected_payload_of_a_kind_without_residual_is_dropped(others, device):
    device.finish_round()
    device.deliver()
    for envelope in device.published:
        assert device.postbox.receive(Receipt(digest(envelope), Outcome.REJECTED, Reason.TOO_STALE.value, "", 0, 1))
    assert device.database.waiting() == 0
    assert [row.sequence for row in device.database.memory("digits", BUNDLE).returned] == [1]
    assert device.postbox.rejected == 2


def test_round_that_gives_no_payload_of_a_kind_spools_the_others(others):
    assert [kind.name for kind, _ in produce(DIGITS, msgspec.structs.replace(RESULT, steps=0))] == ["update"]


def test_kind_that_is_not_installed_any_more_waits_and_holds_up_nothing(others, device):
    device.finish_round()
    del kinds.KINDS[ROUND_REPORT.number]
    device.deliver(2 * FIRST_RECEIPT_SECONDS)
    assert {read_envelope(envelope, MAX_CONTROL_BYTES).header.sequence for envelope in device.published} == {1}
    device.database.close()
    device.start()
    kinds.register(ROUND_REPORT)
    device.published.clear()
    device.deliver()
    assert [read_envelope(envelope, MAX_CONTROL_BYTES).header.sequence for envelope in device.published] == [1, 2]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_receipt_that_comes_when_its_kind_is_not_installed_any_more_settles_it(others, device, outcome):
    _, report = device.finish_round()
    device.deliver()
    del kinds.KINDS[ROUND_REPORT.number]
    assert device.postbox.receive(Receipt(report.digest, outcome, "" if outcome is Outcome.ACCEPTED else "x", "", 0, 1))
    assert device.database.waiting_numbers() == [1]
    kinds.register(ROUND_REPORT)


def test_device_that_encrypts_refuses_to_start_with_a_kind_that_has_no_encrypted_form(others, tmp_path):
    del kinds.KINDS[ENCRYPTED_ROUND_REPORT.number]
    identity = Device(tmp_path, encrypt=True).identity
    with pytest.raises(ConfigurationError, match="round report can't be encrypted"):
        identity.address(ROUND_REPORT)


@pytest.mark.parametrize("encrypt", [False, True])
def test_envelope_is_made_again_with_the_same_bytes_after_a_restart_with_another_setting(tmp_path, encrypt):
    device = Device(tmp_path, encrypt=encrypt)
    device.finish_round()
    device.deliver()
    device.database.close()
    device.encrypt = not encrypt
    device.start()
    device.deliver()
    first, again = device.published
    assert first == again
    device.database.close()


def test_payload_signed_with_another_key_is_kept_unsent_until_that_is_back(tmp_path):
    device = Device(tmp_path)
    device.finish_round()
    own = device.key
    for key, published in ((SigningKey(bytes(32)), 0), (own, 1)):
        device.database.close()
        device.key = key
        device.start()
        device.deliver()
        assert len(device.published) == published
    assert device.database.waiting() == 1
    device.database.close()


def test_kind_has_one_producer_and_is_journalled(others):
    with pytest.raises(ValueError, match="round report has a producer already"):
        producers.register(replace(ROUND_REPORT_PRODUCER))
    with pytest.raises(ValueError, match="not journalled"):
        producers.register(replace(ROUND_REPORT_PRODUCER, kind=kinds.PRESENCE))


DIGITS_FROM_DELTAS = msgspec.structs.replace(DIGITS, versions_from=DELTA.name)


def test_round_gives_the_one_kind_that_the_tasks_versions_are_made_from(others):
    assert [kind.name for kind, _ in produce(DIGITS, RESULT)] == ["update", "round report"]
    assert [kind.name for kind, _ in produce(DIGITS_FROM_DELTAS, RESULT)] == ["round report", "delta"]


def test_task_is_only_trained_where_something_produces_the_kind_of_its_versions():
    assert makes_versions_of(DIGITS)
    assert not makes_versions_of(DIGITS_FROM_DELTAS)
    with installed():
        assert makes_versions_of(DIGITS_FROM_DELTAS)


@pytest.mark.parametrize("encrypt", [False, True])
def test_next_round_takes_back_what_the_producer_reads_out_of_a_rejected_payload(others, tmp_path, encrypt):
    device = Device(tmp_path, encrypt=encrypt)
    for row in device.finish_round(DIGITS_FROM_DELTAS):
        device.postbox.receive(Receipt(row.digest, Outcome.REJECTED, Reason.TOO_STALE.value, "", 0, 1))
    rejected = device.database.memory("digits", BUNDLE).returned
    assert [decode_payload(row.payload, Delta) for row in rejected] == [Delta(32, b"packed")]
    assert given_back(rejected) == {2: Returned(b"packed")}
    del producers.PRODUCERS[DELTA.number]
    assert given_back(rejected) == {}, "it waits until its producer is back"
    device.database.close()
