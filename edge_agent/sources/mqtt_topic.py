"""Readings from a topic of a local broker, as Zigbee2MQTT, Tasmota, ESPHome and Home Assistant publish them."""

import asyncio
import secrets
from asyncio import Queue
from typing import Annotated

import msgspec

from edge_agent.mqtt.broker_client import MAX_WAITING_MESSAGES, BrokerClient
from edge_agent.sources.home_assistant import AnnouncedTopics, announcements
from edge_agent.sources.source import Question, ReadingIntake, SourcePlugin
from fleet_host.broker_settings import BrokerSettings
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.limits import KIB, MAX_PACKET_OVERHEAD_BYTES

MAX_READING_BYTES = 256 * KIB
"""Of one message: some ten thousand numbers."""

MAX_TOPIC_CHARACTERS = 1024

STATE_SECONDS = 10.0
"""Between two looks at what the agent says of itself, where Home Assistant is told."""

MAX_PER_MINUTE = 60_000
"""Readings: a thousand a second is more than an SD card writes."""


TopicFilter = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TOPIC_CHARACTERS)]
Topic = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^[^+#\0]{{1,{MAX_TOPIC_CHARACTERS}}}\Z",
        description=f"1 to {MAX_TOPIC_CHARACTERS} characters without '+' and '#'",
    ),
]


class MqttTopicSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.settings]` of `kind = "mqtt"`."""

    topic: TopicFilter
    """A topic, or a filter with `+` and `#`: `zigbee2mqtt/living-room`."""
    broker: BrokerSettings
    """The local broker, which need not be the fleet's."""
    maximum_per_minute: Annotated[int, msgspec.Meta(ge=1, le=MAX_PER_MINUTE)] = 600
    """More readings are refused: each is a write to the card."""
    learn: bool = True
    """Readings become samples. With `false` they are predicted for alone."""
    predictions_topic: Topic | None = None
    """Where what the model says of each reading is published, at the same broker; nowhere where it is left out."""
    home_assistant: Topic | None = None
    """Home Assistant's discovery prefix, usually `homeassistant`: predictions and the agent appear there by themselves.
    Left out: they don't."""

    def __post_init__(self) -> None:
        """Raises ValueError for what every value by itself allows."""
        if self.home_assistant and not self.predictions_topic:
            raise ValueError("home_assistant needs predictions_topic: name a topic to publish predictions to")


async def follow_topic(settings: MqttTopicSettings, readings: ReadingIntake) -> None:
    """Take what is published, until the connection breaks.

    A retained message is not taken: it was published before, and would count again with each connection.

    Raises:
        MqttError: there is no connection any more.
        ConfigurationError: a file for TLS or the password can't be used.
    """

    def refuse_too_long(topic: str, size: int) -> None:
        readings.refuse("too_long", f"{size} bytes on {topic}; at most {MAX_READING_BYTES} are taken")

    def refuse_dropped() -> None:
        readings.refuse("too_many", f"it came while {MAX_WAITING_MESSAGES} others waited; publish less often")

    loop = asyncio.get_running_loop()
    bucket = TokenBucket(60 / settings.maximum_per_minute, settings.maximum_per_minute)
    full_at = loop.time()
    announced = AnnouncedTopics(settings.predictions_topic or "")
    client = BrokerClient(
        settings.broker,
        f"edge-agent-{secrets.token_hex(8)}",
        last_will=(announced.available, b"offline") if settings.home_assistant else None,
        maximum_packet_bytes=MAX_READING_BYTES + MAX_PACKET_OVERHEAD_BYTES,
        on_too_long=refuse_too_long,
        on_dropped=refuse_dropped,
    )
    async with client, asyncio.TaskGroup() as group:
        await client.subscribe(settings.topic, qos=1)
        readings.tally.failure = ""
        newest: Queue[Question] = Queue(1)
        tasks = [
            group.create_task(_publish_predictions(client, settings, readings, newest)),
            group.create_task(_keep_announced(client, settings, readings, announced)),
        ]
        async for message in client.messages:
            if not isinstance(message.payload, bytes) or not message.payload:  # empty: taken back, or too long
                continue
            if message.retain:
                readings.refuse("retained", f"{message.topic.value} was published before the agent listened")
            elif (after := bucket.after(full_at, loop.time())) is None:
                remedy = "publish less often, or raise maximum_per_minute"
                readings.refuse("too_many", f"more than {settings.maximum_per_minute} readings a minute; {remedy}")
            else:
                full_at = after
                _take(message.payload, settings, readings, newest)
        for task in tasks:
            task.cancel()


def _take(payload: bytes, settings: MqttTopicSettings, readings: ReadingIntake, newest: Queue[Question]) -> None:
    if not settings.predictions_topic:
        if settings.learn:
            readings.take_payload(payload)
        return
    if (question := readings.take_and_ask(payload, learn=settings.learn)) is None:
        return
    if newest.full():
        newest.get_nowait()
        readings.refuse("not_predicted", "a newer reading came before the prediction was made; publish less often")
    newest.put_nowait(question)


async def _publish_predictions(
    client: BrokerClient, settings: MqttTopicSettings, readings: ReadingIntake, newest: Queue[Question]
) -> None:
    """Predict for the newest reading: one that waits is replaced, so none is answered late."""
    while settings.predictions_topic:
        if (predicted := await readings.answer(await newest.get())) is not None:
            await client.publish(settings.predictions_topic, predicted, qos=1)


async def _keep_announced(
    client: BrokerClient, settings: MqttTopicSettings, readings: ReadingIntake, announced: AnnouncedTopics
) -> None:
    """Tell Home Assistant what there is, once the task's description is here; and the agent's state when it changes."""
    said, is_announced, host = b"", False, readings.host
    while settings.home_assistant:
        if not is_announced and (description := readings.description) is not None:
            sensors = announcements(settings.home_assistant, host.fleet, host.device, description, announced)
            for topic, payload in {**sensors, announced.available: b"online"}.items():
                await client.publish(topic, payload, qos=1, retain=True)
            is_announced = True
        if (state := host.status()) != said:
            await client.publish(announced.state, state, qos=1, retain=True)
            said = state
        await asyncio.sleep(STATE_SECONDS)


MQTT_SOURCE = SourcePlugin(MqttTopicSettings, follow_topic)
