"""The coordinator's connection to the broker: reads what arrived, hands it over as one batch, acknowledges, publishes.

One thread, one loop. Messages are acknowledged in order of arrival, after the journal has them. The broker's durable
session delivers again what is not acknowledged when the connection or the process ends; our publications are sent again
until the broker acknowledges them.
"""

import contextlib
import logging
import select
import socket
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_coordinator.admission.decisions import Message
from broker_coordinator.distribution.dynamic_security import ANSWERS
from broker_coordinator.mqtt.certificate_watch import CertificateWatch
from broker_coordinator.mqtt.client import MAX_UNACKNOWLEDGED, make_client
from broker_coordinator.mqtt.divided_socket import READ_AHEAD_BYTES, DividedSocket
from broker_coordinator.mqtt.outgoing import Outgoing, PacketTooLargeError
from broker_coordinator.mqtt.patience import Backoff, BrokerPatience
from broker_coordinator.mqtt.signs_of_life import SignsOfLife
from broker_coordinator.mqtt.traffic import acknowledgements
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import DatabaseSetBackError, JournalUnavailableError
from broker_coordinator.storage.lease import LeaseLostError
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line
from fleet_host.service_manager import ServiceManager
from fleet_protocol.limits import MIB
from fleet_protocol.topics import device_filters, manifest

MAX_BATCH_BYTES = 32 * MIB
"""Of messages in one batch; the rest waits in the socket."""

MAX_READ_BYTES = MAX_BATCH_BYTES
"""Between two batches, whatever it is: dropped bytes make no batch."""

MAX_UNSENT_BYTES = 64 * MIB
"""What waits for the broker to read it. Nothing is read meanwhile: acknowledgements would make it more."""

MAX_IN_FLIGHT = 500
"""Our own publications that the broker has not acknowledged; fewer where an MQTT 5 broker says so."""

MAX_IDLE_SECONDS = 1.0
"""Longest sleep of the loop: paho checks its keepalive when called."""

CONNECTION_TIMEOUT_SECONDS = 10.0
"""Longest wait for CONNACK."""

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
        self._address = f"{settings.host}:{settings.port}"
        self._manifests = manifest(fleet, "")
        self._at_most_once = (manifest(fleet, "+"), *([ANSWERS] if manages_accounts else []))
        self._filters = (*device_filters(fleet, shard), *self._at_most_once)
        self._coordinator = coordinator
        self._coordinator.check_manifests()
        self._client = make_client(settings, f"coordinator-{fleet}-{shard}")
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._certificates = CertificateWatch(settings)
        self._outgoing = Outgoing(MAX_IN_FLIGHT, mqtt5=settings.protocol == "5")
        self._unsubscribed = 0
        self._received: list[Message] = []
        self._identifiers: list[int] = []
        self._received_bytes = 0
        self._waiting_since: float | None = None
        self._signs = SignsOfLife(manager)
        self._has_read_all = True
        self._broker, self._journal = BrokerPatience(self._address), Backoff()
        self._connected_by = 0.0
        self._stopping = False
        self._alarm, self.wakeup = socket.socketpair()
        """`wakeup`: a byte written to it ends the loop's sleep (for `signal.set_wakeup_fd`)."""
        self._alarm.setblocking(False)
        self.wakeup.setblocking(False)

    def stop(self) -> None:
        """Finish the current batch and disconnect; safe to call in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Connect, and serve until `stop`; waits for a broker or database that is unavailable.

        Raises:
            LeaseLostError: another process has taken over.
            DatabaseSetBackError: the database is an older one than at the start.
        """
        while not self._stopping:
            if self._client.socket() is None:
                self._connect()
            self._wait(self._idle_seconds())
            self._read()
            self._hand_over()
            self._publish()
            self._check_connection()
            # A database that fails is waited for, and said: no restart mends it.
            stuck_since = None if self._journal.failures else self._waiting_since
            self._signs.turned(time.monotonic(), stuck_since, self._status_line)
        self._leave()

    def _status_line(self) -> str:
        link = "connected to" if self._client.is_connected() else "waits for"
        database = "; waits for its database" if self._journal.failures else ""
        return f"{link} {self._address}; {len(self._received)} messages to commit{database}"

    def _connect(self) -> None:
        now = time.monotonic()
        if now < self._broker.retry_at:
            return
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self._broker.failed(str(error))
        else:
            self._connected_by = now + CONNECTION_TIMEOUT_SECONDS

    def _check_connection(self) -> None:
        self._client.loop_misc()
        if self._client.is_connected() and (connection := self._connection()):
            self._certificates.look(connection.peer_certificate, time.time())
        waiting = self._client.socket() is not None and not self._client.is_connected()
        if waiting and time.monotonic() > self._connected_by:
            self._broker.failed(f"no answer within {CONNECTION_TIMEOUT_SECONDS:g} s")
            self._client.disconnect()

    def _idle_seconds(self) -> float:
        now = time.monotonic()
        moments = [now + MAX_IDLE_SECONDS]
        if self._client.socket() is None:
            moments.append(self._broker.retry_at)
        if self._journal.failures:
            moments.append(self._journal.retry_at)
        if not self._journal.failures and self._room() > 0 and (due := self._coordinator.next_due()) is not None:
            moments.append(due)
        return max(0.0, min(moments) - now)

    def _wait(self, seconds: float) -> None:
        self._flush()
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if connection := self._connection():
            reads = select.POLLIN if self._may_read(connection) else 0
            writes = select.POLLOUT if connection.unsent_bytes or self._client.want_write() else 0
            poll.register(connection.fileno(), reads | writes)
        may_read = connection is not None and self._may_read(connection) and not self._has_read_all
        ready = dict(poll.poll(0 if may_read else max(1, round(seconds * 1000))))
        if self._alarm.fileno() in ready:
            self._alarm.recv(4096)
        if self._client.want_write():
            self._client.loop_write()

    def _connection(self) -> DividedSocket | None:
        connection = self._client.socket()
        return connection if isinstance(connection, DividedSocket) else None

    def _flush(self) -> None:
        if connection := self._connection():
            with contextlib.suppress(OSError):  # the next read reports the lost connection
                connection.flush()

    def _may_read(self, connection: DividedSocket) -> bool:
        if self._received_bytes >= MAX_BATCH_BYTES or connection.unsent_bytes >= MAX_UNSENT_BYTES:
            return False
        # Manifests that are waited for come behind what has waited at the broker.
        return len(self._received) < MAX_UNACKNOWLEDGED or self._coordinator.is_checking_manifests(time.monotonic())

    def _read(self) -> None:
        if (connection := self._connection()) is None:
            return
        self._has_read_all = False
        for _ in range(MAX_READ_BYTES // READ_AHEAD_BYTES):
            if self._has_read_all or not self._may_read(connection):
                break
            self._has_read_all = not connection.receive()
            self._take(connection)
        while connection.has_news_for_paho and self._client.loop_read() is MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass

    def _take(self, connection: DividedSocket) -> None:
        arrived = connection.take()
        for message in arrived.messages:
            if message.topic.startswith(self._manifests):
                self._coordinator.receive_manifest(message, time.monotonic())
            elif message.topic == ANSWERS:
                self._coordinator.receive_account_answer(message)
            else:
                self._received.append(message)
                self._received_bytes += len(message.data)
        if self._received and self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._identifiers += arrived.identifiers
        for identifier in arrived.acknowledged:
            self._outgoing.acknowledge(identifier)
        for reason in arrived.refused:
            remedy = "allow it in the broker's access control list"
            logger.error(log_line("publication_refused", reason=f"{reason:#x}", remedy=remedy))

    def _hand_over(self) -> None:
        now = time.monotonic()
        if now < self._journal.retry_at:
            return
        try:
            if self._received and not self._coordinator.is_checking_manifests(now):
                self._coordinator.handle(self._received, now)
                self._acknowledge()
                self._publish()
                self._flush()
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
        if connection := self._connection():
            connection.send(acknowledgements(self._identifiers))
        self._forget_received()

    def _forget_received(self) -> None:
        self._received = []
        self._identifiers = []
        self._received_bytes = 0
        self._waiting_since = None

    def _room(self) -> int:
        # An identifier may not be a SUBSCRIBE's, which paho chooses, and ours at the same time.
        if self._unsubscribed or not self._client.is_connected():
            return 0
        return self._outgoing.room()

    def _publish(self) -> None:
        connection = self._connection()
        if connection is None or self._room() <= 0:
            return
        for packet in self._outgoing.repeat():
            connection.send(packet)
        self._broker.limit(self._outgoing)
        for publication in self._coordinator.publications(self._room(), time.monotonic()):
            try:
                connection.send(self._outgoing.send(publication))
            except PacketTooLargeError as error:
                self._broker.note_too_large(error)

    def _leave(self) -> None:
        deadline = time.monotonic() + LEAVING_SECONDS
        self._publish()
        while self._outgoing and self._client.is_connected() and time.monotonic() < deadline:
            self._wait(0.05)
            self._read()
            self._publish()
        self._client.disconnect()
        while self._client.socket() is not None and time.monotonic() < deadline:
            self._wait(0.05)
        logger.info(log_line("stopped"))

    def _on_connect(
        self,
        _client: paho.Client,
        _: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._broker.failed(f"the broker refuses the connection: {reason}")
            return
        self._outgoing.window = min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))
        self._broker.connected(getattr(properties, "MaximumPacketSize", None), self._outgoing)
        logger.info(log_line("broker_connected", address=self._address, session_kept=flags.session_present))
        self._unsubscribed = len(self._filters)
        for topic_filter in self._filters:
            self._client.subscribe(topic_filter, qos=0 if topic_filter in self._at_most_once else 1)
        self._coordinator.announce_all()

    def _on_disconnect(
        self, _client: paho.Client, _: object, _flags: paho.DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        # Their identifiers belong to the connection that ended; the broker delivers them again on the next.
        self._forget_received()
        self._broker.ended(self._outgoing)
        self._outgoing.connection_lost()
        if not self._stopping:
            self._broker.failed(str(reason))

    def _on_subscribe(
        self, _client: paho.Client, _: object, _mid: int, reasons: list[ReasonCode], _p: Properties | None
    ) -> None:
        self._unsubscribed -= 1
        if not self._unsubscribed:
            self._coordinator.subscribed_to_manifests(time.monotonic())
        if any(reason.is_failure for reason in reasons):
            remedy = "allow them in the broker's access control list"
            logger.error(log_line("subscription_refused", filters=self._filters, remedy=remedy))
