"""Coordinators of two shards on one database, without a network; the first leads."""

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import Database
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle import Bundle
from fleet_protocol import topics
from tests.support.bench import KEY
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

SHARDS = (SHARD, "1")


class Shard:
    """One shard's coordinator, which leads or follows for good, with a connection to the database of its own."""

    def __init__(self, database: Database, bundle: Bundle, shard: str, *, leads: bool) -> None:
        self._shard = shard
        self.journal = Journal.open(database)
        settings = AdmissionSettings(FLEET, shard, open_enrolment=True, maximum_devices=100, shards=SHARDS)
        signer = MessageSigner(KEY, FLEET, shard, SHARDS)
        self.coordinator = Coordinator(self.journal, [bundle], signer, settings, may_lead=lambda: leads)

    def hear(self, device: SigningDevice, message: bytes) -> None:
        """Take what a device sends in this shard."""
        topic = topics.up(FLEET, self._shard, device.name)
        self.coordinator.handle([Message(topic, message)], 0.0)
