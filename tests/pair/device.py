"""The shipped device without its event loop: identity, introduction and delivery over the database in memory."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from edge_agent.core.delivery import Delivery, Remedy
from edge_agent.core.enrolment import Answer, EnrolmentAttempts, must_enrol_again
from edge_agent.core.outbox import OutboxRow, SpooledPayload
from edge_agent.producers import goes_back
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from fleet_protocol.envelope import digest
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import ENROLMENT, UPDATE, Enrolment, Receipt, Update, encode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from tests.pair.coordinator import IN_MEMORY, KEY, small_bundle
from tests.pair.ledger import Held, Ledger
from tests.pair.wire import Lane, OnWire
from tests.support.bundles import TASK
from tests.support.device import packed_delta
from tests.support.fleet import FLEET, SHARD

BUNDLE = small_bundle().hash
PACKED = packed_delta(seed=1)


class PairedDatabase(DeviceDatabase):
    """A device's database whose disk may be full."""

    def set_disk_full(self, full: bool) -> None:
        """Let it refuse every write, or take them again."""
        self._connection.execute(f"PRAGMA query_only = {int(full)}")


class PairedDevice:
    """What is in the database survives `restart`, the key alone a `wipe`. What it does is told to `ledger`."""

    def __init__(
        self,
        name: str,
        key: SigningKey,
        lane: Lane,
        *,
        encrypts: bool,
        database_type: type[PairedDatabase] = PairedDatabase,
    ) -> None:
        self.name = name
        self.key = key
        self.ledger = Ledger()
        self._lane = lane
        self._encrypts = encrypts
        self._database_type = database_type
        self.wipe()

    def wipe(self) -> None:
        """It loses all but its name and its key."""
        self.ledger.wipe()
        self._database = self._database_type(IN_MEMORY)
        self._start(self._database.boot)

    def restart(self) -> None:
        """The power fails and comes back."""
        self._start(self._database.continue_boots(self._database.boot))

    def _start(self, boot: int) -> None:
        pinned = write_verify_key(KEY.verify_key)
        self._identity = Identity(FLEET, SHARD, self.name, self.key, pinned, encrypt_updates=self._encrypts)
        self._identity.boot = boot
        self._delivery = Delivery(self._database, self._sign, goes_back)
        self._attempts = EnrolmentAttempts()
        self._enrolment_due = 0.0

    @property
    def down_topic(self) -> str:
        """The topic of its receipts."""
        return self._identity.down_topic

    @contextmanager
    def disk_full(self, full: bool) -> Iterator[None]:
        """If `full`, its database refuses every write meanwhile."""
        self._database.set_disk_full(full)
        yield
        self._database.set_disk_full(False)

    def connect(self) -> None:
        """A new connection."""
        self._delivery.schedule.restart()
        self._attempts.start()
        self._enrolment_due = 0.0

    def learn(self, piece: int, base_version: int, now: float, *, keeps_newest: bool) -> None:
        """A round: residual, what came back and a new piece go into a payload, but for what compression leaves out."""
        memory = self._database.memory(TASK, BUNDLE)
        pieces = [*self._kept(), piece]
        residual = [pieces.pop()] if keeps_newest and len(pieces) > 1 else []
        payload = encode_payload(Update(1, piece, 0.5, PACKED))
        self.ledger.contents[payload] = tuple(pieces)
        kind, recipient = self._identity.address(UPDATE)
        spooled = SpooledPayload(kind, recipient, payload)
        returned = tuple(row.sequence for row in memory.returned)
        finished = SpooledRound(TASK, BUNDLE, base_version, piece, (spooled,), json.dumps(residual).encode(), returned)
        try:
            self._database.spool(finished, self._sign)
        except sqlite3.Error:  # the disk is full: the samples stay for the next round
            return
        self.ledger.learned.add(piece)
        self._delivery.schedule.changed(now)
        self.send(now)

    def send(self, now: float) -> None:
        """Send what is due."""
        if not self._database.is_enrolled() and self._enrolment_due <= now:
            enrolment = Enrolment(self._identity.public_key, "generic", "test 1.0", [TASK])
            signed = self._identity.sign_control(ENROLMENT, encode_payload(enrolment))
            self._enrolment_due = now + self._attempts.sent(digest(signed))
            self._lane.send(OnWire(self._identity.up_topic, signed))
        for number in self._delivery.due(now):
            self._lane.send(OnWire(self._identity.up_topic, self._delivery.envelope(number)))
            self._delivery.schedule.sent(number, now)

    def receive(self, message: OnWire, now: float) -> None:
        """Act on a receipt; where the disk is full, it is as if none had come."""
        receipt, _ = self._identity.verify_from_coordinator(message.topic, message.data, MAX_CONTROL_BYTES)
        assert isinstance(receipt, Receipt)
        try:
            self._act_on(receipt, now)
        except sqlite3.Error:
            return
        self.send(now)

    def _act_on(self, receipt: Receipt, now: float) -> None:
        received = self._delivery.receive(receipt)
        if received is not None:
            self._note(*received)
            self._delivery.schedule.changed(now)
        elif (answer := self._attempts.receive(receipt)) is Answer.ACCEPTED:
            self._database.set_enrolled(True)
        elif answer is Answer.NOT_OURS:
            return
        if must_enrol_again(receipt):
            self._database.set_enrolled(False)
        if receipt.newest_boot > self._identity.boot:
            self._identity.boot = self._database.continue_boots(receipt.newest_boot)

    def _note(self, row: OutboxRow, meant: Remedy) -> None:
        if meant is Remedy.SETTLE:
            self.ledger.accepted.add(row.digest)
        elif meant is Remedy.TAKE_BACK:
            self.ledger.taken_back.add(row.digest)

    def _sign(self, row: OutboxRow) -> bytes:
        envelope = self._identity.sign_row(row)
        self.ledger.sign(row.sequence, digest(envelope), row.payload)
        return envelope

    def next_due(self) -> float | None:
        """When it sends a waiting payload next; None where nothing waits."""
        return self._delivery.schedule.next_due

    def held(self) -> Held:
        """What its database holds."""
        rows = [self._database.read(number) for number in self._database.waiting_numbers()]
        return Held({row.digest: self.ledger.contents[row.payload] for row in rows if row}, self._kept())

    def _kept(self) -> list[int]:
        memory = self._database.memory(TASK, BUNDLE)
        residual = json.loads(memory.residual or b"[]")
        return residual + [piece for row in memory.returned for piece in self.ledger.contents[row.payload]]
