"""A whole coordinator without its network: messages in, what it says out."""

import sqlite3

from sqlalchemy import Engine, event

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import Database
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle import Bundle
from fleet_protocol.envelope import Envelope, read_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import MANIFEST, RECEIPT, Manifest, PayloadKind, Receipt, decode_payload
from fleet_protocol.limits import MAX_SIGNED_CHUNK_BYTES
from fleet_protocol.task_description import TaskDescription
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

KEY = SigningKey.generate()
OPEN = AdmissionSettings(FLEET, SHARD, open_enrolment=True, maximum_devices=100)


def wait_for_no_disk(engine: Engine) -> None:
    """What is committed to SQLite survives the process, as with `kill -9`, and not the machine: of the PostgreSQL that
    tests have the same is true. What survives a power cut is seen by tests/support/power_cuts.py.
    """
    if engine.dialect.name != "sqlite":
        return

    def prepare(connection: sqlite3.Connection, _entry: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(engine, "connect", prepare)
    connection = engine.raw_connection()
    connection.cursor().execute("PRAGMA synchronous = OFF")
    connection.close()


class Bench:
    """A coordinator on a database, without a network; `restart` is a kill -9 and a start."""

    def __init__(
        self, database: Database, bundle: Bundle | None, settings: AdmissionSettings = OPEN, **options
    ) -> None:
        self.database, self._bundle, self._settings, self._options, self.now = database, bundle, settings, options, 0.0
        self._start()

    @property
    def description(self) -> TaskDescription:
        """The task that it serves."""
        assert self._bundle is not None
        return self._bundle.description

    def restart(self) -> None:
        self.journal.close()
        self._start()

    def _start(self) -> None:
        self.journal = Journal.open(self.database)
        wait_for_no_disk(self.journal.engine)
        signer = MessageSigner(KEY, FLEET, SHARD)
        self.coordinator = Coordinator(
            self.journal, [self._bundle] if self._bundle else [], signer, self._settings, **self._options
        )

    def handle(self, device: SigningDevice, *messages: bytes) -> None:
        self.coordinator.handle([Message(device.up, data) for data in messages], self.now)

    def present(self, device: SigningDevice, presence: bytes) -> None:
        self.coordinator.handle([Message(device.state, presence)], self.now)

    def make_versions(self) -> None:
        self.coordinator.make_versions(self.now)

    def said(self) -> list[Publication]:
        self.now += 1.0
        return self.coordinator.publications(1000, self.now)

    def receipts(self) -> list[Receipt]:
        return [decode_payload(envelope.payload, Receipt) for envelope in self._envelopes(RECEIPT)]

    def manifests(self) -> list[Manifest]:
        envelopes = self._envelopes(MANIFEST)
        manifests = [decode_payload(envelope.payload, Manifest) for envelope in envelopes]
        assert [manifest.version for manifest in manifests] == [envelope.header.sequence for envelope in envelopes]
        return manifests

    def _envelopes(self, kind: PayloadKind) -> list[Envelope]:
        read = [(said.topic, read_envelope(said.data, MAX_SIGNED_CHUNK_BYTES)) for said in self.said()]
        for topic, envelope in read:
            envelope.verify(KEY.verify_key, topic)
        return [envelope for _, envelope in read if envelope.header.kind is kind]

    def fill_disk(self) -> None:
        self._limit_pages(1)  # SQLite raises it to the pages in use: not one page more

    def free_disk(self) -> None:
        self._limit_pages(2**30)

    def _limit_pages(self, pages: int) -> None:
        with self.journal.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
