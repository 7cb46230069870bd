"""The MQTT link: one connection to the broker, made again whenever it breaks."""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import aiomqtt

from fleet_host.backoff import delay_seconds
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

PROTOCOLS = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}
BROKER_TIMEOUT_SECONDS = 15.0
"""Longest wait for CONNACK, SUBACK and PUBACK."""
MAX_WAITING_MESSAGES = 512
"""Messages from the broker not handled yet; more are dropped: chunks are asked for again, receipts are repeated."""

STABLE_SECONDS = 30.0
"""A link that lasted this long resets the back-off. Two devices that share a name disconnect each other at once, and
back off."""

Handler = Callable[[str, bytes], None]


class LinkDownError(Exception):
    """There is no connection to the broker right now."""


class Link:
    """One connection at a time, for as long as the agent runs. `publish` and `subscribe` need it to be up."""

    def __init__(
        self,
        broker: BrokerSettings,
        identifier: str,
        *,
        last_will: tuple[str, bytes],
        on_connected: Callable[[], Coroutine[None, None, None]],
        handle: Handler,
        filters: Sequence[str],
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._last_will = last_will
        self._on_connected = on_connected
        self._handle = handle
        self._filters = list(filters)
        self._listening: list[str] = []
        self._client: aiomqtt.Client | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    async def run(self) -> None:
        """Connect, and reconnect with back-off and full jitter, until cancelled."""
        loop = asyncio.get_running_loop()
        where = f"{self._broker.host}:{self._broker.port}"
        attempt = 0
        connected_at = math.inf
        while True:
            try:
                async with self._new_client() as client:
                    for topic_filter in (*self._filters, *self._listening):
                        await self._subscribe(client, topic_filter)
                    logger.info(log_line("broker_connected", address=where))
                    connected_at = loop.time()
                    self._client = client
                    await self._serve_connection(client)
            except* (aiomqtt.MqttError, LinkDownError) as group:
                if loop.time() - connected_at > STABLE_SECONDS:
                    attempt = 0
                pause = delay_seconds(attempt, random.random())  # noqa: S311 - jitter, not a secret
                logger.warning(
                    log_line("broker_unreachable", address=where, error=_innermost(group), retry_in_s=f"{pause:.1f}")
                )
                attempt += 1
                await asyncio.sleep(pause)
            finally:
                self._client = None
                connected_at = math.inf

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the broker's PUBACK, which is not the coordinator's receipt.

        Raises:
            LinkDownError: there is no connection, or it broke before the acknowledgement.
        """
        client = self._require_client()
        try:
            await client.publish(topic, payload, qos=1, retain=retain)
        except aiomqtt.MqttError as error:
            raise LinkDownError(str(error)) from error

    @contextlib.asynccontextmanager
    async def listening_to(self, topic_filter: str) -> AsyncIterator[None]:
        """Stay subscribed to `topic_filter` for the length of a block, over reconnects too.

        Raises:
            LinkDownError: there is no connection, or it broke before SUBACK.
        """
        client = self._require_client()
        self._listening.append(topic_filter)
        try:
            await self._subscribe(client, topic_filter)
            yield
        finally:
            self._listening.remove(topic_filter)
            if self._client is not None:
                with contextlib.suppress(aiomqtt.MqttError):
                    await self._client.unsubscribe(topic_filter)

    async def _subscribe(self, client: aiomqtt.Client, topic_filter: str) -> None:
        try:
            await client.subscribe(topic_filter, qos=1)
        except aiomqtt.MqttError as error:
            raise LinkDownError(str(error)) from error

    def _require_client(self) -> aiomqtt.Client:
        if self._client is None:
            raise LinkDownError(f"no connection to {self._broker.host}:{self._broker.port}")
        return self._client

    async def _serve_connection(self, client: aiomqtt.Client) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._on_connected())
                async for message in client.messages:
                    if isinstance(message.payload, bytes):
                        self._handle(message.topic.value, message.payload)
        except asyncio.CancelledError:
            topic, payload = self._last_will  # after a regular DISCONNECT the broker does not publish the will
            with contextlib.suppress(aiomqtt.MqttError):
                await client.publish(topic, payload, qos=1, retain=True)
            raise

    def _new_client(self) -> aiomqtt.Client:
        topic, payload = self._last_will
        version_5 = self._broker.protocol == "5"
        return aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=self._identifier,
            protocol=PROTOCOLS[self._broker.protocol],
            clean_session=None if version_5 else True,
            clean_start=True if version_5 else 3,
            username=self._broker.username,
            password=self._broker.password(),
            tls_context=self._broker.tls_context(),
            keepalive=self._broker.keepalive_seconds,
            timeout=BROKER_TIMEOUT_SECONDS,
            max_queued_incoming_messages=MAX_WAITING_MESSAGES,
            will=aiomqtt.Will(topic, payload, qos=1, retain=True),
        )


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
