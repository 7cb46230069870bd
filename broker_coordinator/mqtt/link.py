"""The coordinator's connection to the broker: reads what arrived, hands it over as one batch, acknowledges, publishes.

One thread, one loop. Messages are acknowledged in order of arrival, after the journal has them. The broker's durable
session delivers again what is not acknowledged when the connection or the process ends; our publications are sent again
until the broker acknowledges them.
"""

import logging
import time

from broker_coordinator.admission.decisions import Message
from broker_coordinator.distribution.dynamic_security import ANSWERS
from broker_coordinator.mqtt.certificate_watch import CertificateWatch
from broker_coordinator.mqtt.client import MAX_UNACKNOWLEDGED
from broker_coordinator.mqtt.connection import BrokerConnection
from broker_coordinator.mqtt.divided_socket import READ_AHEAD_BYTES, DividedSocket
from broker_coordinator.mqtt.patience import Backoff
from broker_coordinator.mqtt.signs_of_life import SignsOfLife
from broker_coordinator.mqtt.traffic import acknowledgements
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import DatabaseSetBackError, JournalUnavailableError
from broker_coordinator.storage.lease import LeaseLostError
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line
from fleet_host.service_manager import ServiceManager
from fleet_protocol.limits import MIB
from fleet_protocol.topics import device_filters, manifest, roster

MAX_BATCH_BYTES = 32 * MIB
"""Of messages in one batch; the rest waits in the socket."""

MAX_READ_BYTES = MAX_BATCH_BYTES
"""Between two batches, whatever it is: dropped bytes make no batch."""

MAX_UNSENT_BYTES = 64 * MIB
"""What waits for the broker to read it. Nothing is read meanwhile: acknowledgements would make it more."""

MAX_IDLE_SECONDS = 1.0
"""Longest sleep of the loop: paho checks its keepalive when called."""

LEAVING_SECONDS = 2.0
"""How long a stopping coordinator goes on publishing what it has queued."""

logger = logging.getLogger(__name__)


class MqttLink:
    """Runs a coordinator on a broker until `stop`."""

    def __init__(
        self,
        settings: BrokerSettings,
        fleet: str,
        shard: str,
        coordinator: Coordinator,
        manager: ServiceManager = ServiceManager(),  # noqa: B008 - a constant: it is frozen
        *,
        manages_accounts: bool = False,
    ) -> None:
        """`manages_accounts`: the coordinator hears what the broker's dynamic security answers."""
        self._manifests, self._rosters = manifest(fleet, ""), roster(fleet, "")
        at_most_once = (roster(fleet, "+"), manifest(fleet, "+"), *([ANSWERS] if manages_accounts else []))
        filters = dict.fromkeys(device_filters(fleet, shard), 1) | dict.fromkeys(at_most_once, 0)
        self._coordinator = coordinator
        self._coordinator.check_manifests()
        self._connection = BrokerConnection(
            settings, f"coordinator-{fleet}-{shard}", filters, self, completes_rules=manages_accounts
        )
        self.wakeup = self._connection.wakeup
        """A byte written to it ends the loop's sleep (for `signal.set_wakeup_fd`)."""
        self._certificates = CertificateWatch(settings)
        self._received: list[Message] = []
        self._identifiers: list[int] = []
        self._received_bytes = 0
        self._waiting_since: float | None = None
        self._signs = SignsOfLife(manager)
        self._has_read_all = True
        self._journal = Backoff()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._connection.is_connected

    def stop(self) -> None:
        """Finish the current batch and disconnect; safe to call in a signal handler."""
        self._connection.stop()

    def run(self) -> None:
        """Connect, and serve until `stop`; waits for a broker or database that is unavailable.

        Raises:
            LeaseLostError: another process has taken over.
            DatabaseSetBackError: the database is an older one than at the start.
        """
        while not self._connection.is_stopping:
            self._connection.connect()
            self._wait(self._idle_seconds())
            self._read()
            self._hand_over()
            self._publish()
            self._check_connection()
            # A database that fails is waited for, and said: no restart mends it.
            stuck_since = None if self._journal.failures else self._waiting_since
            self._signs.turned(time.monotonic(), stuck_since, self._status_line)
        self._leave()

    def connected(self, *, session_kept: bool) -> None:
        """The broker has accepted the connection."""
        logger.info(log_line("broker_connected", address=self._connection.address, session_kept=session_kept))
        self._coordinator.announce_all()

    def subscribed(self) -> None:
        """What the broker retains comes from now on."""
        self._coordinator.subscribed_to_manifests(time.monotonic())

    def disconnected(self) -> None:
        """What was not acknowledged has identifiers of that connection; the broker delivers it again on the next."""
        self._forget_received()

    def _status_line(self) -> str:
        link = "connected to" if self._connection.is_connected else "waits for"
        database = "; waits for its database" if self._journal.failures else ""
        return f"{link} {self._connection.address}; {len(self._received)} messages to commit{database}"

    def _check_connection(self) -> None:
        self._connection.check()
        if self._connection.is_connected and (connection := self._connection.socket):
            self._certificates.look(connection.peer_certificate, time.time())

    def _idle_seconds(self) -> float:
        now = time.monotonic()
        moments = [now + MAX_IDLE_SECONDS]
        if not self._connection.has_begun:
            moments.append(self._connection.retry_at)
        if self._journal.failures:
            moments.append(self._journal.retry_at)
        elif self._connection.room() > 0 and (due := self._coordinator.next_due()) is not None:
            moments.append(due)
        return max(0.0, min(moments) - now)

    def _wait(self, seconds: float) -> None:
        self._connection.flush()
        connection = self._connection.socket
        may_read = connection is not None and self._may_read(connection)
        self._connection.wait(0 if may_read and not self._has_read_all else max(seconds, 0.001), reads=may_read)

    def _may_read(self, connection: DividedSocket) -> bool:
        if self._received_bytes >= MAX_BATCH_BYTES or connection.unsent_bytes >= MAX_UNSENT_BYTES:
            return False
        # Manifests that are waited for come behind what has waited at the broker.
        return len(self._received) < MAX_UNACKNOWLEDGED or self._coordinator.is_checking_manifests(time.monotonic())

    def _read(self) -> None:
        if (connection := self._connection.socket) is None:
            return
        self._has_read_all = False
        for _ in range(MAX_READ_BYTES // READ_AHEAD_BYTES):
            if self._has_read_all or not self._may_read(connection):
                break
            self._has_read_all = not connection.receive()
            self._take()
        self._connection.hand_to_paho()

    def _take(self) -> None:
        arrived = self._connection.take()
        for message in arrived.messages:
            if message.topic.startswith(self._manifests):
                self._coordinator.receive_manifest(message, time.monotonic())
            elif message.topic.startswith(self._rosters):
                self._coordinator.receive_roster(message, time.monotonic())
            elif message.topic == ANSWERS:
                self._coordinator.receive_account_answer(message)
            else:
                self._received.append(message)
                self._received_bytes += len(message.data)
        if self._received and self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._identifiers += arrived.identifiers

    def _hand_over(self) -> None:
        now = time.monotonic()
        if now < self._journal.retry_at:
            return
        try:
            if self._received and not self._coordinator.is_checking_manifests(now):
                self._coordinator.handle(self._received, now)
                self._acknowledge()
                self._publish()
                self._connection.flush()
            else:
                self._coordinator.reload_if_changed()
            self._coordinator.make_versions(now)
        except (LeaseLostError, DatabaseSetBackError):
            raise
        except JournalUnavailableError as error:
            if not self._journal.failures:
                logger.error(log_line("journal_unavailable", error=error, waiting_messages=len(self._received)))
            self._journal.failed()
        else:
            if self._journal.failures:
                logger.info(log_line("journal_recovered"))
            self._journal = Backoff()

    def _acknowledge(self) -> None:
        if connection := self._connection.socket:
            connection.send(acknowledgements(self._identifiers))
        self._forget_received()

    def _forget_received(self) -> None:
        self._received = []
        self._identifiers = []
        self._received_bytes = 0
        self._waiting_since = None

    def _publish(self) -> None:
        self._connection.repeat()
        if (room := self._connection.room()) > 0:
            for publication in self._coordinator.publications(room, time.monotonic()):
                self._connection.publish(publication)

    def _leave(self) -> None:
        deadline = time.monotonic() + LEAVING_SECONDS
        self._publish()
        while self._connection.unacknowledged and self._connection.is_connected and time.monotonic() < deadline:
            self._wait(0.05)
            self._read()
            self._publish()
        self._connection.disconnect()
        while self._connection.has_begun and time.monotonic() < deadline:
            self._wait(0.05)
        logger.info(log_line("stopped"))
