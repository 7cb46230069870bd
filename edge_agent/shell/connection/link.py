"""The MQTT link: one connection to the broker, made again whenever it breaks."""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.mqtt.broker_client import HEARS_AT_QOS, BrokerClient
from edge_agent.shell.connection.broker_complaints import BrokerComplaints
from edge_agent.shell.connection.pinned_authorities import believing
from edge_agent.shell.host.cancellation import end_if_cancelled
from fleet_host.backoff import delay_seconds
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line
from fleet_host.mqtt_packets import publication_bytes
from fleet_host.publication_limit import OnItsWay, PublicationLimit
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_PACKET_OVERHEAD_BYTES, MIB

logger = logging.getLogger(__name__)

STABLE_SECONDS = 30.0
"""A link that lasted this long resets the back-off. Two devices that share a name disconnect each other at once, and
back off."""

MAX_UNSENT_BYTES = 8 * MIB
"""Of what the socket has not taken yet: beyond it, what may be lost is lost here."""

Handler = Callable[[str, bytes], None]


class LinkDownError(Exception):
    """There is no connection to the broker right now."""


class LinkLeftError(Exception):
    """Whoever raises it in `on_connected` has given the connection up, and another one begins at once."""


class Link:
    """One connection at a time, for as long as the agent runs. `publish` and `subscribe` need it to be up.

    Of a message longer than `maximum_message_bytes` nothing is kept, and `handle` never sees it.

    Raises:
        ConfigurationError: a file for TLS or the password can't be used. One that can't be used later is waited for.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        identifier: str,
        *,
        last_will: tuple[str, bytes],
        on_connected: Callable[[], Coroutine[None, None, None]],
        handle: Handler,
        filters: Sequence[str],
        maximum_message_bytes: int,
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self.last_will = last_will
        """Of the next connection, and what is published at the end of this one: a topic and its message."""
        self._on_connected = on_connected
        self._handle = handle
        self.filters = list(filters)
        """What each connection subscribes to from the next one on."""
        self._maximum_packet_bytes = maximum_message_bytes + MAX_PACKET_OVERHEAD_BYTES
        self._limit = PublicationLimit()
        self._on_their_way: list[tuple[int, float]] = []
        """Bytes of what is not acknowledged, and when it was handed over."""
        self._longest_taken = 0
        self._complaints = BrokerComplaints(identifier, self._maximum_packet_bytes)
        self._listening: list[str] = []
        self._client: BrokerClient | None = None
        self.transferred = 0
        """Bytes of messages, both ways, since the start: what is below MQTT is not in it."""
        broker.tls_context()
        broker.password()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    def read_messages_of(self, maximum_message_bytes: int) -> bool:
        """Read messages of so many bytes too, from the next connection on; whether there is one that does not."""
        size = maximum_message_bytes + MAX_PACKET_OVERHEAD_BYTES
        if size <= self._maximum_packet_bytes:
            return False
        self._maximum_packet_bytes = self._complaints.maximum_packet_bytes = size
        return self._client is not None

    def trust(self, authority: Path) -> None:
        """Believe these authorities' certificates about the broker, from the next connection on."""
        self._broker = believing(self._broker, authority)

    async def run(self) -> None:
        """Connect, and reconnect with back-off and full jitter, until cancelled."""
        loop = asyncio.get_running_loop()
        where = f"{self._broker.host}:{self._broker.port}"
        attempt = 0
        while True:
            connected_at, words = math.inf, ""
            try:
                client = self._new_client()
                try:
                    async with client:
                        connected_at = loop.time()
                        await self._begin(client)
                        logger.info(log_line("broker_connected", address=where))
                        self._client = client
                        await self._serve_connection(client)
                finally:
                    self._client = None
                    words = client.lost
            except* LinkLeftError:
                end_if_cancelled()
                self._forget_publications()
            except* (aiomqtt.MqttError, LinkDownError, ConfigurationError) as group:
                end_if_cancelled()
                attempt = 0 if loop.time() - connected_at > STABLE_SECONDS else attempt
                pause = delay_seconds(attempt, random.random())  # noqa: S311 - jitter, not a secret
                error = _cause(group)
                logger.warning(
                    log_line("broker_unreachable", address=where, error=words or error, retry_in_s=f"{pause:.1f}")
                )
                shown = self._limit.connection_ended(self._on_its_way(loop.time()), loop.time())
                self._forget_publications()
                self._complaints.connection_ended(error, shown, lasted_seconds=loop.time() - connected_at)
                attempt += 1
                await asyncio.sleep(pause)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the broker's PUBACK, which is not the coordinator's receipt.

        What the broker can't take is not sent, and what it does not want is lost: both are said in the log.

        Raises:
            LinkDownError: there is no connection, or it broke before the acknowledgement.
        """
        client = self._require_client()
        size = publication_bytes(topic, len(payload), mqtt5=client.mqtt5)
        now = asyncio.get_running_loop().time()
        limit = self._limit.maximum_bytes(now)
        if limit is not None and size > limit:
            self._complaints.publication_too_large(topic, size, limit)
            return
        self._on_their_way.append((size, now))
        try:
            reason = await client.hand_over(topic, payload, retain=retain)
        except aiomqtt.MqttError as error:
            raise LinkDownError(str(error)) from error
        with contextlib.suppress(ValueError):  # of a connection that has ended
            self._on_their_way.remove((size, now))
        self._longest_taken = max(self._longest_taken, size)
        self.transferred += size
        if reason.is_failure:
            self._complaints.publication_refused(topic, reason)

    def send_off(self, topic: str, payload: bytes, *, at_least_once: bool = False) -> bool:
        """Publish, and wait for nothing; False where it is lost already, without a connection or on one that does not
        keep up. Whoever sends it sees by the answer whether it came. `at_least_once`: at QoS 1, else at QoS 0.
        """
        if self._client is None or self._client.unsent_bytes > MAX_UNSENT_BYTES:
            return False
        try:
            self._client.send_off(topic, payload, int(at_least_once))
        except aiomqtt.MqttError:
            return False
        self.transferred += publication_bytes(topic, len(payload), mqtt5=self._client.mqtt5)
        return True

    @contextlib.asynccontextmanager
    async def listening_to(self, topic_filter: str) -> AsyncIterator[None]:
        """Stay subscribed to `topic_filter` for the length of a block, over reconnects too.

        Raises:
            LinkDownError: there is no connection, or it broke before SUBACK.
        """
        self._require_client()
        self._listening.append(topic_filter)
        try:
            await self.subscribe(topic_filter)
            yield
        finally:
            self._listening.remove(topic_filter)
            with contextlib.suppress(LinkDownError):
                await self.unsubscribe(topic_filter)

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe for as long as this connection lasts.

        Raises:
            LinkDownError: there is no connection, or it broke before SUBACK.
        """
        await self._subscribe(self._require_client(), topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Take `subscribe` back.

        Raises:
            LinkDownError: there is no connection, or it broke before UNSUBACK.
        """
        try:
            await self._require_client().unsubscribe(topic_filter)
        except aiomqtt.MqttError as error:
            raise LinkDownError(str(error)) from error

    async def _begin(self, client: BrokerClient) -> None:
        self._limit.connected(client.broker_maximum_bytes)
        for topic_filter in (*self.filters, *self._listening):
            await self._subscribe(client, topic_filter)

    async def _subscribe(self, client: BrokerClient, topic_filter: str) -> None:
        try:
            granted = await client.subscribe(topic_filter, qos=HEARS_AT_QOS)
        except aiomqtt.MqttError as error:
            raise LinkDownError(str(error)) from error
        for reason in granted:
            if isinstance(reason, ReasonCode) and reason.is_failure:
                self._complaints.subscription_refused(topic_filter, reason)

    def _on_its_way(self, now: float) -> OnItsWay:
        longest = max((size for size, _ in self._on_their_way), default=0)
        handed_over = min((since for size, since in self._on_their_way if size == longest), default=now)
        return OnItsWay(longest, now - handed_over, self._longest_taken)

    def _forget_publications(self) -> None:
        self._on_their_way.clear()
        self._longest_taken = 0

    def _require_client(self) -> BrokerClient:
        if self._client is None:
            raise LinkDownError(f"no connection to {self._broker.host}:{self._broker.port}")
        return self._client

    async def _serve_connection(self, client: BrokerClient) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._on_connected())
                async for message in client.messages:
                    if isinstance(message.payload, bytes) and message.payload:  # empty: taken back, or too long
                        self.transferred += len(message.payload)
                        self._handle(message.topic.value, message.payload)
        except asyncio.CancelledError:
            topic, payload = self.last_will  # after a regular DISCONNECT the broker does not publish the will
            with contextlib.suppress(aiomqtt.MqttError):
                await client.hand_over(topic, payload, retain=True)
            raise

    def _new_client(self) -> BrokerClient:
        return BrokerClient(
            self._broker,
            self._identifier,
            last_will=self.last_will,
            maximum_packet_bytes=self._maximum_packet_bytes,
            on_too_long=self._complaints.message_too_large,
        )


def _cause(group: BaseException) -> BaseException:
    """The error in a group that says most: what the broker gave as its reason, if it did."""
    errors = list(_leaves(group))
    return next((error for error in errors if isinstance(error, aiomqtt.MqttCodeError)), errors[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
        return
    yield error
    if error.__cause__ is not None:
        yield from _leaves(error.__cause__)
