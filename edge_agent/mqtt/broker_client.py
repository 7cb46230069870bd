"""aiomqtt's client, and what it lacks: a bound on what is read, the broker's own bound, and its answer to a message."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import aiomqtt
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.mqtt.bounded_socket import BoundedSocket
from fleet_host.broker_settings import BrokerSettings
from fleet_host.broker_socket import connected_socket
from fleet_host.mqtt_packets import OnTooLong, PacketGate

BROKER_TIMEOUT_SECONDS = 15.0
"""Longest wait for CONNACK, SUBACK and PUBACK."""

HEARS_AT_QOS = 0
"""Of a device's subscriptions: its session ends with its connection, so QoS 1 would give nothing that TCP does not, and
costs an acknowledgement each, and in clustered brokers a consumer (docs/decisions/devices-hear-at-qos-0.md).
"""

MAX_WAITING_MESSAGES = 512
"""Messages from the broker not handled yet; more are dropped: chunks are asked for again, receipts are repeated."""

SHORTEST_SLEEP_SECONDS = 1.0
"""Between two looks at whether a ping is due."""

PROTOCOLS = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}


Answer = TypeVar("Answer")

_SILENT = logging.getLogger("mqtt.silent")
_SILENT.setLevel(logging.CRITICAL + 1)
"""The link says what happens; the libraries would say it again, in other words."""


class _WaitingMessages(asyncio.Queue[aiomqtt.Message]):
    """Drops what does not fit, and tells `on_dropped`. aiomqtt itself would write a log line for each."""

    on_dropped: Callable[[], object] | None = None

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Add, if there is room."""
        if not self.full():
            super().put_nowait(item)
        elif self.on_dropped is not None:
            self.on_dropped()


class BrokerClient(aiomqtt.Client):
    """One connection to a broker. Packets longer than `maximum_packet_bytes` pass without their payload.

    It overrides methods that aiomqtt 2.5 keeps to itself, and two of paho's: pyproject.toml allows no other.

    Raises:
        ConfigurationError: a file for TLS or the password can't be used.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        identifier: str,
        *,
        last_will: tuple[str, bytes] | None = None,
        maximum_packet_bytes: int,
        on_too_long: OnTooLong,
        on_dropped: Callable[[], object] | None = None,
    ) -> None:
        """`on_dropped` is called for each message that came while `MAX_WAITING_MESSAGES` waited."""
        self.mqtt5 = broker.protocol == "5"
        super().__init__(
            broker.host,
            broker.port,
            identifier=identifier,
            protocol=PROTOCOLS[broker.protocol],
            clean_session=None if self.mqtt5 else True,
            clean_start=True if self.mqtt5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            username=broker.username,
            password=broker.password(),
            tls_context=broker.tls_context(),
            keepalive=broker.keepalive_seconds,
            timeout=BROKER_TIMEOUT_SECONDS,
            logger=_SILENT,
            queue_type=_WaitingMessages,
            max_queued_incoming_messages=MAX_WAITING_MESSAGES,
            will=aiomqtt.Will(*last_will, qos=1, retain=True) if last_will else None,
            properties=_announcing(maximum_packet_bytes) if self.mqtt5 else None,
        )
        if isinstance(self._queue, _WaitingMessages):
            self._queue.on_dropped = on_dropped
        self.broker_maximum_bytes: int | None = None
        """The longest packet that the broker takes, if it has said so."""
        self._bounded: BoundedSocket | None = None
        self._answers: dict[int, asyncio.Future[ReasonCode]] = {}
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        create_socket = self._client._create_socket

        def create_bounded_socket() -> BoundedSocket:
            connection = create_socket()
            assert isinstance(connection, socket.socket)  # noqa: S101 - no websockets
            # Nagle's algorithm would hold a SUBSCRIBE back until the packet before it is acknowledged: 40 ms awake.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            gate = PacketGate(maximum_packet_bytes, mqtt5=self.mqtt5, on_too_long=on_too_long)
            self._bounded = BoundedSocket(connection, gate)
            return self._bounded

        self._client._create_socket = create_bounded_socket  # type: ignore[method-assign]
        self._client._create_socket_connection = partial(  # type: ignore[method-assign]
            connected_socket, broker.host, broker.port, self._client._connect_timeout
        )

    @property
    def lost(self) -> str:
        """Why the connection ended, where the socket knows: paho calls all of that unspecified."""
        return self._bounded.lost if self._bounded else ""

    async def hand_over(self, topic: str, payload: bytes, *, retain: bool = False) -> ReasonCode:
        """Publish at QoS 1; returns the reason code of the broker's PUBACK, which MQTT 3.1.1 always has as success.

        Raises:
            MqttError: the connection broke before the acknowledgement, or none came in time.
        """
        sent = self._client.publish(topic, payload, 1, retain)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(sent.rc, "Could not publish message")
        answer: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._answers[sent.mid] = answer
        try:
            return await self._wait_for(answer, None)
        finally:
            self._answers.pop(sent.mid, None)

    def send_off(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish, and wait for nothing; at QoS 0 the broker does not acknowledge it either.

        Raises:
            MqttError: the connection is broken.
        """
        sent = self._client.publish(topic, payload, qos)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(sent.rc, "Could not publish message")

    @property
    def unsent_bytes(self) -> int:
        """Of packets that the socket has not taken yet."""
        return sum(packet["to_process"] for packet in tuple(self._client._out_packet))

    async def _wait_for(self, fut: Awaitable[Answer], timeout: float | None) -> Answer:  # noqa: ASYNC109 - aiomqtt's own
        """Of the broker, and no longer than the connection is there: aiomqtt would wait on for what can't come.

        Without `asyncio.wait_for`, which before Python 3.12 may lose a cancellation: an agent that is told to end would
        go on for ever.
        """
        awaited = asyncio.ensure_future(fut)
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                await asyncio.wait((awaited, self._gone), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise aiomqtt.MqttError("no answer in time") from None
        finally:
            if awaited is not fut:
                awaited.cancel()
        if awaited.cancelled() or not awaited.done():
            raise aiomqtt.MqttError(self.lost or "the connection ended before the broker's answer")
        return awaited.result()

    async def _misc_loop(self) -> None:
        """Keep the connection alive; aiomqtt would wake each second for it."""
        while self._client.loop_misc() == paho.MQTT_ERR_SUCCESS:
            quiet_since = min(self._client._last_msg_out, self._client._last_bytes_received)
            await asyncio.sleep(seconds_until_due(time.monotonic(), self._client.keepalive, quiet_since))

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """Later, as paho may call this in another thread. By then the socket may be closed, and its number another
        file's, which aiomqtt would watch in its place.
        """
        self._loop.call_soon_threadsafe(self._watch_for_room, client, sock)

    def _watch_for_room(self, client: paho.Client, connection: BoundedSocket) -> None:
        if (number := connection.fileno()) >= 0:
            self._loop.add_writer(number, self._write, client)

    def _write(self, client: paho.Client) -> None:
        try:
            client.loop_write()
        except Exception as error:
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.broker_maximum_bytes = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._note_gone)
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _note_gone(self) -> None:
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # whoever waited is told by `_gone`; asyncio would say it once more
        if not self._gone.done():
            self._gone.set_result(None)

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)


def seconds_until_due(now: float, keepalive: int, quiet_since: float) -> float:
    """How long a connection can be left alone in which one side has been quiet since then: until a ping is due, or its
    answer overdue.
    """
    return max(SHORTEST_SLEEP_SECONDS, quiet_since + keepalive - now)


def _announcing(maximum_packet_bytes: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.MaximumPacketSize = maximum_packet_bytes
    return properties
