"""A kind of payload that only this file knows travels from a finished round to its receipt like any other."""

import asyncio
import contextlib
from collections.abc import Iterator

import msgspec
import pytest

from edge_agent import producers
from edge_agent.core.delivery import FIRST_RECEIPT_SECONDS
from edge_agent.core.outbox import SpooledPayload
from edge_agent.producers import Producer, produce
from edge_agent.shell.device_database import DeviceDatabase, SpooledRound
from edge_agent.shell.identity import Identity
from edge_agent.shell.postbox import Postbox
from edge_agent.worker.contract import TrainingResult
from fleet_protocol import kinds
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import Leaf, Outcome, PayloadKind, Receipt, Update, decode_payload, encode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from tests.support.jumping_clock import run
from tests.unit.test_feedback import DIGITS

BUNDLE = "0f" * 32
RESULT = TrainingResult(b"packed", b"residual", samples=32, steps=40, trained_through=40, loss=0.25)


class StepCount(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How many steps a device has trained."""

    steps: int


STEP_COUNT = PayloadKind(4000, StepCount, Leaf.UP, MAX_CONTROL_BYTES, journalled=True)


def count_steps(_: TaskDescription, result: TrainingResult) -> bytes | None:
    return encode_payload(StepCount(result.steps)) if result.steps else None


@pytest.fixture
def registered() -> Iterator[Producer]:
    """Until the test is over."""
    kinds.register(STEP_COUNT)
    producer = producers.register(Producer(STEP_COUNT, count_steps))
    yield producer
    del kinds.KINDS[STEP_COUNT.number], producers.PRODUCERS[STEP_COUNT.number]


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

    def finish_round(self) -> list:
        payloads = tuple(
            SpooledPayload(*self.identity.address(kind), payload) for kind, payload in produce(DIGITS, RESULT)
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


def test_round_spools_both_payloads_with_numbers_of_their_own_and_delivers_them(registered, device):
    rows = device.finish_round()
    assert [(row.sequence, row.kind) for row in rows] == [(1, 6), (2, STEP_COUNT.number)]
    device.database.close()
    device.start()
    device.deliver()
    update, steps = (read_envelope(envelope, MAX_CONTROL_BYTES) for envelope in device.published)
    assert (update.header.sequence, steps.header.sequence) == (1, 2)
    assert decode_payload(update.payload, Update).packed == b"packed"
    assert steps.header.kind is STEP_COUNT
    assert decode_payload(steps.payload, StepCount) == StepCount(40)
    for envelope in device.published:
        assert device.postbox.receive(accepted(envelope))
    assert device.database.waiting() == 0


def test_rejected_payload_of_a_kind_without_residual_is_dropped(registered, device):
    device.finish_round()
    device.deliver()
    for envelope in device.published:
        assert device.postbox.receive(Receipt(digest(envelope), Outcome.REJECTED, Reason.TOO_STALE.value, "", 0, 1))
    assert device.database.waiting() == 0
    assert [row.sequence for row in device.database.memory("digits", BUNDLE).returned] == [1]
    assert device.postbox.rejected == 2


def test_round_that_gives_no_payload_of_a_kind_spools_the_others(registered):
    assert [kind.name for kind, _ in produce(DIGITS, msgspec.structs.replace(RESULT, steps=0))] == ["update"]


def test_kind_that_is_not_installed_any_more_waits_and_holds_up_nothing(registered, device):
    device.finish_round()
    del kinds.KINDS[STEP_COUNT.number]
    device.deliver(2 * FIRST_RECEIPT_SECONDS)
    assert {read_envelope(envelope, MAX_CONTROL_BYTES).header.sequence for envelope in device.published} == {1}
    device.database.close()
    device.start()
    kinds.register(STEP_COUNT)
    device.published.clear()
    device.deliver()
    assert [read_envelope(envelope, MAX_CONTROL_BYTES).header.sequence for envelope in device.published] == [1, 2]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_receipt_that_comes_when_its_kind_is_not_installed_any_more_settles_it(registered, device, outcome):
    _, steps = device.finish_round()
    device.deliver()
    del kinds.KINDS[STEP_COUNT.number]
    assert device.postbox.receive(Receipt(steps.digest, outcome, "" if outcome is Outcome.ACCEPTED else "x", "", 0, 1))
    assert device.database.waiting_numbers() == [1]
    kinds.register(STEP_COUNT)


def test_device_that_encrypts_refuses_to_start_with_a_kind_that_has_no_encrypted_form(registered, tmp_path):
    identity = Device(tmp_path, encrypt=True).identity
    with pytest.raises(ConfigurationError, match="step count can't be encrypted"):
        identity.address(STEP_COUNT)


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


def test_kind_has_one_producer_and_is_journalled(registered):
    with pytest.raises(ValueError, match="step count has a producer already"):
        producers.register(Producer(STEP_COUNT, count_steps))
    with pytest.raises(ValueError, match="not journalled"):
        producers.register(Producer(kinds.PRESENCE, count_steps))
