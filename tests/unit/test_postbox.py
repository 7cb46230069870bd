"""The postbox: an update leaves on its own receipt alone. Hours pass in an event loop whose clock jumps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from itertools import pairwise

import pytest

from edge_agent.core.delivery import FIRST_RECEIPT_SECONDS, LAST_RECEIPT_SECONDS, PUT_OFF_SECONDS
from edge_agent.core.outbox import OutboxRow, SpooledPayload
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import UPDATE, Outcome, PayloadKind, Receipt
from fleet_protocol.limits import MAX_CONTINUED_SEQUENCE, MAX_SEQUENCE, MAX_UPDATE_BYTES
from tests.support.jumping_clock import NothingScheduledError, run

BUNDLE = "0f" * 32
HOUR = 3600.0


class Device:
    """A real database, key and postbox; what is published lands in `published` with the time it was."""

    def __init__(self, folder) -> None:
        self.database = DeviceDatabase(folder / "agent.db")
        self.key = SigningKey(bytes(range(32)))
        self.identity = Identity("greenhouse", "0", "pi", self.key, write_verify_key(self.key.verify_key))
        self.link_is_up = True
        self.published: list[tuple[float, bytes]] = []
        self.postbox = Postbox(self.database, self.identity.sign_row, self._publish)

    async def _publish(self, envelope: bytes) -> None:
        if not self.link_is_up:
            raise LinkDownError("no connection to 127.0.0.1:1883")
        self.published.append((asyncio.get_running_loop().time(), envelope))

    def spool(self, payload: bytes = b"payload", kind: PayloadKind = UPDATE) -> OutboxRow:
        spooled = SpooledPayload(*self.identity.address(kind), payload)
        finished = SpooledRound("digits", BUNDLE, 7, 40, (spooled,), b"residual")
        (row,) = self.database.spool(finished, self.identity.sign_row)
        self.postbox.notify()
        return row

    def waiting(self) -> list[OutboxRow]:
        return [self.database.read(number) for number in self.database.waiting_numbers()]

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        delivery = asyncio.create_task(self.postbox.deliver())
        try:
            yield
        finally:
            delivery.cancel()
            ended, _ = await asyncio.wait({delivery}, timeout=HOUR)
            assert ended == {delivery}

    def times_of(self, row: OutboxRow) -> list[float]:
        return [moment for moment, envelope in self.published if digest(envelope) == row.digest]


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path)
    yield device
    device.database.close()


let_pass: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep
"""Virtual seconds."""


def accept(row: OutboxRow) -> Receipt:
    return Receipt(row.digest, Outcome.ACCEPTED, "", "", row.sequence, 1)


def reject(row: OutboxRow, reason: str, highest_sequence: int = 0) -> Receipt:
    return Receipt(row.digest, Outcome.REJECTED, reason, "", highest_sequence, 1)


def test_accepted_update_leaves_the_outbox_and_is_never_sent_again(device):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(1)
            assert device.postbox.receive(accept(row))
            await let_pass(HOUR)
        assert device.times_of(row) == [0.0]
        assert device.waiting() == []
        assert device.database.memory("digits", BUNDLE).returned == ()
        assert (device.postbox.accepted, device.postbox.rejected) == (1, 0)
        assert not device.postbox.receive(accept(row))

    run(scenario())


@pytest.mark.parametrize(
    ("highest", "number"),
    [(MAX_CONTINUED_SEQUENCE, MAX_CONTINUED_SEQUENCE + 1), (MAX_CONTINUED_SEQUENCE + 1, 2), (MAX_SEQUENCE, 2)],
)
def test_number_with_little_room_behind_it_is_ignored_and_the_device_counts_on(device, caplog, highest, number):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(1)
            assert device.postbox.receive(reject(row, Reason.SEQUENCE_REUSED, highest_sequence=highest))
            await let_pass(1)
            (renumbered,) = device.waiting()
            assert renumbered.sequence == number
            assert device.times_of(renumbered) == [1.0]
            assert device.postbox.receive(accept(renumbered))
        assert device.spool().sequence == number + 1
        assert caplog.text.count("event=receipt_number_ignored") == (highest > MAX_CONTINUED_SEQUENCE)

    run(scenario())


@pytest.mark.parametrize(
    "reason", [Reason.TOO_STALE.value, Reason.WRONG_RECIPIENT.value, Reason.NOT_FINITE.value, "a_reason_of_next_year"]
)
def test_rejected_update_goes_back_to_the_residual_and_is_never_sent_again(device, reason):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(1)
            assert device.postbox.receive(reject(row, reason))
            await let_pass(HOUR)
        assert device.times_of(row) == [0.0]
        assert device.waiting() == []
        assert device.database.memory("digits", BUNDLE).returned == (replace(row, reason=reason),)
        assert (device.postbox.accepted, device.postbox.rejected) == (0, 1)

    run(scenario())


def test_wiped_device_takes_a_new_number_and_sends_the_same_change_again(device):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(1)
            assert device.postbox.receive(reject(row, Reason.SEQUENCE_REUSED, highest_sequence=900))
            await let_pass(1)
            (renumbered,) = device.waiting()
            assert device.times_of(renumbered) == [1.0]
            assert device.postbox.receive(accept(renumbered))
        assert renumbered.payload == row.payload
        envelope = read_envelope(device.published[-1][1], MAX_UPDATE_BYTES)
        envelope.verify(device.key.verify_key, device.identity.up_topic)
        assert envelope.header.sequence == 901
        assert renumbered.digest == digest(device.published[-1][1])
        assert device.database.memory("digits", BUNDLE).returned == ()
        assert device.postbox.rejected == 0

    run(scenario())


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_KEY, Reason.UNKNOWN_KIND, Reason.TASK_PAUSED, Reason.RATE_LIMITED])
def test_device_that_is_put_off_keeps_its_update_and_asks_once_a_minute(device, reason):
    async def scenario():
        row = device.spool()
        async with device.connected():
            for _ in range(10):
                asked = len(device.published)
                while len(device.published) == asked:
                    await let_pass(1)
                assert device.postbox.receive(reject(row, reason))
            assert device.postbox.receive(accept(row))
        times = device.times_of(row)
        assert times[1] - times[0] >= FIRST_RECEIPT_SECONDS
        assert {later - earlier for earlier, later in pairwise(times[1:])} == {PUT_OFF_SECONDS}
        assert device.database.memory("digits", BUNDLE).returned == ()

    run(scenario())


def test_revoked_device_keeps_its_update(device):
    row = device.spool()
    assert device.postbox.receive(reject(row, Reason.REVOKED_KEY))
    assert device.waiting() == [row]


def test_receipt_for_somebodys_forgery_says_nothing_about_ours(device):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(1)
            forged = bytes(16)
            assert not device.postbox.receive(Receipt(forged, Outcome.REJECTED, Reason.BAD_SIGNATURE, "", 0, 1))
            assert not device.postbox.receive(Receipt(forged, Outcome.ACCEPTED, "", "", row.sequence, 1))
            assert not device.postbox.receive(
                Receipt(forged, Outcome.REJECTED, Reason.SEQUENCE_REUSED, "", MAX_SEQUENCE, 1)
            )
        assert device.waiting() == [row]
        assert device.spool().sequence == row.sequence + 1

    run(scenario())


def test_without_a_receipt_nothing_is_sent_again_before_its_patience_ends(device):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(HOUR)
        times = device.times_of(row)
        pauses = [later - earlier for earlier, later in pairwise(times)]
        doubling = [FIRST_RECEIPT_SECONDS * 2**number for number in range(len(pauses))]
        assert pauses == [min(pause, LAST_RECEIPT_SECONDS) for pause in doubling]
        assert len(pauses) > 8
        assert device.waiting() == [row]

    run(scenario())


def test_new_updates_neither_repeat_nor_put_off_one_whose_receipt_was_lost(device):
    async def scenario():
        lost = device.spool()
        async with device.connected():
            for number in range(20):
                await let_pass(FIRST_RECEIPT_SECONDS / 4)
                newer = device.spool(f"{number}".encode())
                await let_pass(FIRST_RECEIPT_SECONDS / 4)
                assert device.times_of(newer) != []
                assert device.postbox.receive(accept(newer))
        assert device.times_of(lost) == [FIRST_RECEIPT_SECONDS * number for number in range(10)]

    run(scenario())


def test_rows_survive_a_broken_link_and_go_out_with_the_next_connection(device):
    async def scenario():
        device.link_is_up = False
        rows = [device.spool(), device.spool(b"second")]
        with pytest.raises(LinkDownError):
            await device.postbox.deliver()
        assert device.published == []
        assert device.waiting() == rows

        device.link_is_up = True
        async with device.connected():
            await let_pass(1)
        async with device.connected():
            await let_pass(1)
        assert [digest(envelope) for _, envelope in device.published] == 2 * [row.digest for row in rows]

    run(scenario())


def test_link_that_breaks_between_two_updates_loses_neither(device):
    async def scenario():
        async def break_after_one(envelope: bytes) -> None:
            await device._publish(envelope)
            device.link_is_up = False

        rows = [device.spool(), device.spool(b"second")]
        with pytest.raises(LinkDownError):
            await Postbox(device.database, device.identity.sign_row, break_after_one).deliver()
        assert device.waiting() == rows

    run(scenario())


def test_cancelling_is_heard_even_at_the_moment_of_a_receipt(device):
    async def scenario():
        row = device.spool()
        async with device.connected():
            await let_pass(1)
            device.postbox.receive(accept(row))

    run(scenario())


def test_empty_outbox_sets_no_timer(device):
    device.postbox.receive(accept(device.spool()))
    with pytest.raises(NothingScheduledError):
        run(device.postbox.deliver())
    assert device.published == []


def test_update_is_noted_as_sent_before_it_is_published(device):
    device.spool(b"first")
    device.spool(b"second")
    noted = [device.database.sent_bytes()]

    async def publish(_envelope: bytes) -> None:
        noted.append(device.database.sent_bytes())

    device.postbox._publish = publish

    async def one_more_comes_while_connected() -> None:
        async with device.connected():
            await let_pass(1)
            device.spool(b"later")
            await let_pass(1)

    run(one_more_comes_while_connected())
    assert noted[:4] == [0, 11, 11, 16]


def test_update_that_can_not_be_noted_as_sent_is_not_published_and_waits(device):
    device.spool()
    device.database._connection.execute("PRAGMA query_only = 1")

    async def while_the_disk_is_full_and_after() -> None:
        async with device.connected():
            await let_pass(1)
            assert device.published == []
            device.database._connection.execute("PRAGMA query_only = 0")
            await let_pass(FIRST_RECEIPT_SECONDS)

    run(while_the_disk_is_full_and_after())
    assert len(device.published) == 1
