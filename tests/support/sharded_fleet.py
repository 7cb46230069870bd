"""Coordinators of several shards on one broker and one database, each with a connection and a thread of its own."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.mqtt.link import MqttLink
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle import Bundle
from fleet_host.broker_settings import BrokerSettings
from tests.support.broker import Broker
from tests.support.fleet import FLEET
from tests.support.waiting import DEADLINE_SECONDS


class ShardThread:
    """The coordinator of one shard; with a buffer that never fills, each takes in alone."""

    def __init__(self, broker: Broker, database: Path, bundle: Bundle, signer: MessageSigner) -> None:
        self._journal = Journal.open(database)
        settings = AdmissionSettings(
            FLEET, signer.shard, open_enrolment=True, maximum_devices=100, shards=signer.shards
        )
        coordinator = Coordinator(self._journal, [bundle], signer, settings)
        self._link = MqttLink(BrokerSettings(broker.host, broker.port), FLEET, signer.shard, coordinator)
        self._thread = threading.Thread(target=self._link.run)
        self._thread.start()

    def stop(self) -> None:
        """End it in order."""
        self._link.stop()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        self._journal.close()


@contextlib.contextmanager
def served(broker: Broker, database: Path, bundle: Bundle, signers: Iterable[MessageSigner]) -> Iterator[None]:
    """The coordinators of these signers' shards, for the length of a block."""
    with contextlib.ExitStack() as stack:
        for signer in signers:
            stack.callback(ShardThread(broker, database, bundle, signer).stop)
        yield
