"""The relay's own connection to the broker: one thread, one loop. A lost connection loses no session, only frames.

What waits to be passed on is bounded by the relay; what was passed on and waits for the broker to read it, here: no
more is taken out of the fair queues meanwhile.
"""

import contextlib
import logging
import select
import socket
import time
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_coordinator.distribution import signed_messages
from broker_coordinator.mqtt.client import make_client
from broker_coordinator.mqtt.divided_socket import DividedSocket
from broker_coordinator.mqtt.outgoing import Outgoing
from broker_coordinator.mqtt.patience import BrokerPatience
from broker_coordinator.mqtt.traffic import acknowledgements, unacknowledged_packet
from broker_coordinator.storage.database import JournalUnavailableError
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import KIB, MAX_PACKET_OVERHEAD_BYTES, MIB
from fleet_protocol.sessions.frames import MAX_FRAME_MESSAGE_BYTES
from fleet_protocol.topics import relay_filters
from session_relay.relay.core.relay import Relay
from session_relay.relay.directory_source import DirectorySource

MAX_UNSENT_BYTES: Final = 1 * MIB
"""What waits for the broker to read it. It is passed on in the order of the fair queues only up to there."""
PASSED_AT_ONCE_BYTES: Final = 256 * KIB
MAX_IN_FLIGHT: Final = 500
"""Our own signed messages that the broker has not acknowledged."""
LOOK_SECONDS: Final = 1.0
"""Between two looks into the coordinator's database."""
TICK_SECONDS: Final = 0.5
"""Between two looks at what has waited for too long."""
CONNECTION_TIMEOUT_SECONDS: Final = 10.0
"""Longest wait for CONNACK."""
LOG_SECONDS: Final = 60.0
"""Between two log lines on messages of one sender that are refused."""
SENDERS_LOGGED: Final = 1_000

logger = logging.getLogger(__name__)


class RelayLink:
    """Runs a relay on a broker until `stop`."""

    def __init__(self, settings: BrokerSettings, relay: Relay, source: DirectorySource) -> None:
        self._address = f"{settings.host}:{settings.port}"
        self._relay, self._source = relay, source
        self._filters = relay_filters(relay.fleet, relay.shard)
        largest = MAX_PACKET_OVERHEAD_BYTES + MAX_FRAME_MESSAGE_BYTES
        identifier = f"relay-{relay.fleet}-{relay.shard}"
        self._mqtt5 = settings.protocol == "5"
        self._client = make_client(settings, identifier, is_durable=False, largest_packet_bytes=largest)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._outgoing = Outgoing(MAX_IN_FLIGHT, mqtt5=self._mqtt5)
        self._unsubscribed = 0
        self._broker = BrokerPatience(self._address)
        self._connected_by = 0.0
        self._look_at = self._tick_at = 0.0
        self._database_fails = False
        self._logged = RateLimit(LOG_SECONDS, SENDERS_LOGGED)
        self._stopping = False
        self._alarm, self.wakeup = socket.socketpair()
        """`wakeup`: a byte written to it ends the loop's sleep (for `signal.set_wakeup_fd`)."""
        self._alarm.setblocking(False)
        self.wakeup.setblocking(False)

    def stop(self) -> None:
        """Disconnect; safe to call in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Connect, and pass on until `stop`; waits for a broker that is not there."""
        while not self._stopping:
            if self._client.socket() is None:
                self._connect()
            self._look()
            self._wait()
            self._read()
            self._publish()
            self._client.loop_misc()
            if self._client.socket() and not self._client.is_connected() and time.monotonic() > self._connected_by:
                self._broker.failed(f"no answer within {CONNECTION_TIMEOUT_SECONDS:g} s")
                self._client.disconnect()
        self._client.disconnect()
        logger.info(log_line("relay_stopped"))

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

    def _look(self) -> None:
        """See what the coordinator's database says, and what has waited for too long."""
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + TICK_SECONDS
            self._relay.pass_time(now)
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            self._relay.learn(self._source.read(), now)
        except JournalUnavailableError as error:
            if not self._database_fails:
                remedy = "none if it comes back: sessions go on as they are"
                logger.error(log_line("relay_database_unavailable", error=error, remedy=remedy))
            self._database_fails = True
        else:
            self._database_fails = False

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if connection := self._connection():
            with contextlib.suppress(OSError):  # the next read reports the lost connection
                connection.flush()
            writes = select.POLLOUT if connection.unsent_bytes or self._client.want_write() else 0
            poll.register(connection.fileno(), select.POLLIN | writes)
        may_pass_on = connection is not None and self._may_pass_on(connection)
        ready = dict(poll.poll(0 if may_pass_on else TICK_SECONDS * 1000))
        if self._alarm.fileno() in ready:
            self._alarm.recv(4096)
        if self._client.want_write():
            self._client.loop_write()

    def _may_pass_on(self, connection: DividedSocket) -> bool:
        has_room = self._client.is_connected() and connection.unsent_bytes < MAX_UNSENT_BYTES
        return has_room and bool(self._relay.queues.size)

    def _connection(self) -> DividedSocket | None:
        connection = self._client.socket()
        return connection if isinstance(connection, DividedSocket) else None

    def _read(self) -> None:
        if (connection := self._connection()) is None:
            return
        connection.receive()
        arrived = connection.take()
        now = time.monotonic()
        for message in arrived.messages:
            try:
                self._relay.receive(message.topic, message.data, now)
            except ProtocolError as error:
                if self._logged.allows(message.topic, now):
                    logger.warning(log_line("relay_refused", topic=message.topic, error=error))
        if arrived.identifiers:
            connection.send(acknowledgements(arrived.identifiers))
        for identifier in arrived.acknowledged:
            self._outgoing.acknowledge(identifier)
        for reason in arrived.refused:
            remedy = "allow it in the broker's access control list"
            logger.error(log_line("publication_refused", reason=f"{reason:#x}", remedy=remedy))
        while connection.has_news_for_paho and self._client.loop_read() is MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass

    def _publish(self) -> None:
        connection = self._connection()
        if connection is None or not self._client.is_connected() or self._unsubscribed:
            return
        for packet in self._outgoing.repeat():
            connection.send(packet)
        while self._relay.control_waits and self._outgoing.room() > 0:
            control = self._relay.next_control()
            connection.send(self._outgoing.send(signed_messages.Publication(control.topic, control.data)))
        with contextlib.suppress(OSError):  # the next read reports the lost connection
            connection.flush()
            while self._may_pass_on(connection):
                for frame in self._relay.next_frames(PASSED_AT_ONCE_BYTES):
                    connection.send(unacknowledged_packet(frame.topic, frame.data, mqtt5=self._mqtt5))
                if not connection.flush():
                    break

    def _on_connect(
        self,
        _client: paho.Client,
        _: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._broker.failed(f"the broker refuses the connection: {reason}")
            return
        self._outgoing.window = min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))
        self._broker.connected(getattr(properties, "MaximumPacketSize", None), self._outgoing)
        self._unsubscribed = len(self._filters)
        for topic_filter in self._filters:
            self._client.subscribe(topic_filter, qos=1)

    def _on_disconnect(
        self, _client: paho.Client, _: object, _flags: paho.DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self._broker.ended(self._outgoing)
        self._outgoing.connection_lost()
        if not self._stopping:
            self._broker.failed(str(reason))

    def _on_subscribe(
        self, _client: paho.Client, _: object, _mid: int, reasons: list[ReasonCode], _p: Properties | None
    ) -> None:
        self._unsubscribed -= 1
        if any(reason.is_failure for reason in reasons):
            remedy = "allow them in the broker's access control list"
            logger.error(log_line("subscription_refused", filters=self._filters, remedy=remedy))
        if not self._unsubscribed:
            logger.info(log_line("relay_connected", address=self._address))
