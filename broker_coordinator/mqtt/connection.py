"""A program's connection to the broker, and the next when that ends: the coordinator's, or its relay's.

One thread, one loop. It connects after a growing pause, subscribes, waits for what comes, and repeats what the broker
has not acknowledged. What is said is its owner's business.
"""

import contextlib
import logging
import select
import socket
import time
from collections.abc import Mapping
from typing import Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.mqtt.client import make_client
from broker_coordinator.mqtt.divided_socket import DividedSocket
from broker_coordinator.mqtt.outgoing import Outgoing, PacketTooLargeError
from broker_coordinator.mqtt.patience import BrokerPatience
from broker_coordinator.mqtt.traffic import Arrived
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line

MAX_IN_FLIGHT = 500
"""Our own publications that the broker has not acknowledged; fewer where an MQTT 5 broker says so."""

CONNECTION_TIMEOUT_SECONDS = 10.0
"""Longest wait for CONNACK."""

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Whoever speaks on the connection, and hears how it is doing."""

    def connected(self, *, session_kept: bool) -> None:
        """A connection has begun; the broker has kept what came meanwhile, or not."""

    def subscribed(self) -> None:
        """The broker has answered every subscription of this connection."""

    def disconnected(self) -> None:
        """The connection has ended."""


class BrokerConnection:
    """To be used from one thread alone, but for `stop`."""

    def __init__(
        self,
        settings: BrokerSettings,
        identifier: str,
        filters: Mapping[str, int],
        owner: Owner,
        *,
        is_durable: bool = True,
        largest_packet_bytes: int | None = None,
        completes_rules: bool = False,
    ) -> None:
        """`identifier` is the client's, `filters` what it subscribes to, each with its quality of service.
        `completes_rules`: what its first connection is refused, the owner allows itself next, and the broker ends that
        connection. The rest is what `make_client` takes.

        Raises:
            ConfigurationError: a file for TLS or the password can't be used.
        """
        self.address = f"{settings.host}:{settings.port}"
        self._filters, self._owner = filters, owner
        self._client = make_client(
            settings, identifier, is_durable=is_durable, largest_packet_bytes=largest_packet_bytes
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._outgoing = Outgoing(MAX_IN_FLIGHT, mqtt5=settings.protocol == "5")
        self._unsubscribed = 0
        self._connections = 0
        self._completes_rules = completes_rules
        self._broker = BrokerPatience(self.address)
        self._connected_by = 0.0
        self.is_stopping = False
        """Whether `stop` was called."""
        self._alarm, self.wakeup = socket.socketpair()
        """`wakeup`: a byte written to it ends the loop's sleep (for `signal.set_wakeup_fd`)."""
        self._alarm.setblocking(False)
        self.wakeup.setblocking(False)

    def stop(self) -> None:
        """Note that its owner is to end; safe to call in a signal handler."""
        self.is_stopping = True

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._client.is_connected()

    @property
    def has_begun(self) -> bool:
        """Whether there is a connection, accepted or not."""
        return self._client.socket() is not None

    @property
    def socket(self) -> DividedSocket | None:
        """What is read from and written to, while there is a connection."""
        connection = self._client.socket()
        return connection if isinstance(connection, DividedSocket) else None

    @property
    def retry_at(self) -> float:
        """When the next connection is tried, on the monotonic clock."""
        return self._broker.retry_at

    @property
    def unacknowledged(self) -> int:
        """Publications that the broker has not acknowledged."""
        return len(self._outgoing)

    def connect(self) -> None:
        """Begin a connection where there is none, once its time has come."""
        now = time.monotonic()
        if self.has_begun or now < self._broker.retry_at:
            return
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self._broker.failed(str(error))
        else:
            self._connected_by = now + CONNECTION_TIMEOUT_SECONDS

    def check(self) -> None:
        """Keep the connection alive, and give up one that the broker does not accept."""
        self._client.loop_misc()
        if self.has_begun and not self.is_connected and time.monotonic() > self._connected_by:
            self._broker.failed(f"no answer within {CONNECTION_TIMEOUT_SECONDS:g} s")
            self._client.disconnect()

    def disconnect(self) -> None:
        """End the connection, in order."""
        self._client.disconnect()

    def wait(self, seconds: float, *, reads: bool = True) -> None:
        """Sleep until something comes (if it `reads`), what waits can be sent, or `wakeup` is written to."""
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if connection := self.socket:
            writes = select.POLLOUT if connection.unsent_bytes or self._client.want_write() else 0
            poll.register(connection.fileno(), (select.POLLIN if reads else 0) | writes)
        ready = dict(poll.poll(max(1, round(seconds * 1000)) if seconds else 0))
        if self._alarm.fileno() in ready:
            self._alarm.recv(4096)
        if self._client.want_write():
            self._client.loop_write()

    def take(self) -> Arrived:
        """What the socket has received; acknowledgements of ours are noted already."""
        connection = self.socket
        if connection is None:
            return Arrived()
        arrived = connection.take()
        for identifier in arrived.acknowledged:
            self._outgoing.acknowledge(identifier)
        for reason in arrived.refused:
            remedy = "allow it in the broker's access control list"
            logger.error(log_line("publication_refused", reason=f"{reason:#x}", remedy=remedy))
        return arrived

    def hand_to_paho(self) -> None:
        """Let paho have what it has to handle of what was received, a lost connection among it."""
        if (connection := self.socket) is None:
            return
        while connection.has_news_for_paho and self._client.loop_read() is MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass

    def flush(self) -> bool:
        """Send what waits; whether all of it is sent."""
        with contextlib.suppress(OSError):  # the next read reports the lost connection
            return self.socket is None or self.socket.flush()
        return False

    def room(self) -> int:
        """How many publications may be sent now, repetitions included; none before all subscriptions are answered."""
        # An identifier may not be a SUBSCRIBE's, which paho chooses, and ours at the same time.
        return 0 if self._unsubscribed or not self.is_connected else self._outgoing.room()

    def repeat(self) -> None:
        """Send again what a connection before has left unacknowledged, as far as there is room."""
        if (connection := self.socket) and self.room() > 0:
            for packet in self._outgoing.repeat(time.monotonic()):
                connection.send(packet)
            self._broker.limit(self._outgoing)

    def publish(self, publication: Publication) -> None:
        """Send one, for which there is room, until it is acknowledged; what is too large for the broker is said."""
        try:
            packet = self._outgoing.send(publication, time.monotonic())
        except PacketTooLargeError as error:
            self._broker.note_too_large(error)
            return
        if connection := self.socket:
            connection.send(packet)

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
        self._unsubscribed = len(self._filters)
        self._connections += 1
        for topic_filter, quality in self._filters.items():
            self._client.subscribe(topic_filter, qos=quality)
        self._owner.connected(session_kept=flags.session_present)

    def _on_disconnect(
        self, _client: paho.Client, _: object, _flags: paho.DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self._owner.disconnected()
        self._broker.ended(self._outgoing)
        self._outgoing.connection_lost()
        if not self.is_stopping:
            self._broker.failed(str(reason))

    def _on_subscribe(
        self, _client: paho.Client, _: object, _mid: int, reasons: list[ReasonCode], _p: Properties | None
    ) -> None:
        self._unsubscribed -= 1
        is_told = not self._completes_rules or self._connections > 1
        if is_told and any(reason.is_failure for reason in reasons):
            remedy = "allow them in the broker's access control list"
            logger.error(log_line("subscription_refused", filters=list(self._filters), remedy=remedy))
        if not self._unsubscribed:
            self._owner.subscribed()
