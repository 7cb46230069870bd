"""A paho-mqtt client for a coordinator or its relay, with a socket that handles PUBLISH and PUBACK itself."""

import socket

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker_coordinator.mqtt.divided_socket import DividedSocket
from broker_coordinator.mqtt.traffic import TrafficDivider
from fleet_host.broker_settings import BrokerSettings
from fleet_host.broker_socket import connected_socket
from fleet_protocol.kinds import FROM_COORDINATOR, KINDS
from fleet_protocol.limits import MAX_PACKET_OVERHEAD_BYTES

MAX_UNACKNOWLEDGED = 1_000
"""Messages that the broker may send ahead of our acknowledgements: one batch, committed in one transaction. An MQTT 5
broker is told so; Mosquitto's own `max_inflight_messages` (20 unless set) must allow it too."""

SESSION_NEVER_EXPIRES = 0xFFFFFFFF


def make_client(
    settings: BrokerSettings, client_id: str, *, is_durable: bool = True, largest_packet_bytes: int | None = None
) -> paho.Client:
    """A client that is ready for `reconnect`. The broker keeps what comes meanwhile where it `is_durable`.
    `largest_packet_bytes` is of what is read, by default `max_packet_bytes()`.

    Raises:
        ConfigurationError: a file for TLS or the password can't be used.
    """
    mqtt5 = settings.protocol == "5"
    largest = largest_packet_bytes or max_packet_bytes()
    client = _Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if mqtt5 else not is_durable,
        protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.largest_packet_bytes = largest
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password())
    if (context := settings.tls_context()) is not None:
        client.tls_set_context(context)
    client.connect_async(
        settings.host,
        settings.port,
        settings.keepalive_seconds,
        clean_start=not is_durable,
        properties=_session(largest, is_durable=is_durable) if mqtt5 else None,
    )
    return client


def max_packet_bytes() -> int:
    """The length of the longest packet that a coordinator reads: no larger message of any kind is admitted.

    An MQTT 5 broker is told so, and keeps back what exceeds it.
    """
    return MAX_PACKET_OVERHEAD_BYTES + max(
        kind.max_bytes for kind in KINDS.values() if kind.leaf not in FROM_COORDINATOR
    )


def _session(largest_packet_bytes: int, *, is_durable: bool) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval = SESSION_NEVER_EXPIRES if is_durable else 0
    properties.ReceiveMaximum = MAX_UNACKNOWLEDGED
    properties.MaximumPacketSize = largest_packet_bytes
    return properties


class _Client(paho.Client):
    largest_packet_bytes: int

    def _create_socket_connection(self) -> socket.socket:
        return connected_socket(self._host, self._port, self._connect_timeout)

    def _create_socket(self) -> DividedSocket:  # type: ignore[override]  # it has what paho uses of a socket
        connection = super()._create_socket()
        assert isinstance(connection, socket.socket)  # noqa: S101 - no websockets
        # A PUBACK is 4 bytes: Nagle's algorithm would hold each back until the one before is acknowledged.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mqtt5 = self.protocol == MQTTProtocolVersion.MQTTv5
        return DividedSocket(connection, TrafficDivider(mqtt5=mqtt5, max_packet_bytes=self.largest_packet_bytes))
