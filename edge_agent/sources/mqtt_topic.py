"""Readings from topics of a local broker, as Zigbee2MQTT, Tasmota, ESPHome and Home Assistant publish them."""

import asyncio
import secrets
from asyncio import Queue
from typing import Annotated

import msgspec

from edge_agent.mqtt.broker_client import MAX_WAITING_MESSAGES, BrokerClient
from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.sources.home_assistant import AnnouncedTopics, announcements
from edge_agent.sources.joined_topics import JoinedTopics
from edge_agent.sources.source import Question, ReadingIntake, SourcePlugin
from fleet_host.broker_settings import BrokerSettings
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.configuration import Seconds
from fleet_protocol.limits import KIB, MAX_PACKET_OVERHEAD_BYTES

MAX_READING_BYTES = 256 * KIB
"""Of one message: some ten thousand numbers."""

MAX_TOPIC_CHARACTERS = 1024

STATE_SECONDS = 10.0
"""Between two looks at what the agent says of itself, where Home Assistant is told."""

MAX_PER_MINUTE = 60_000
"""Readings: a thousand a second is more than an SD card writes."""


_LEVEL = r"[^+#/\x00-\x1f\x7f]*"
TopicFilter = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(?=.{{1,{MAX_TOPIC_CHARACTERS}}}\Z)((\+|{_LEVEL})/)*(\+|#|{_LEVEL})\Z",
        description=f"a topic filter of 1 to {MAX_TOPIC_CHARACTERS} characters in one line; + stands for a whole level,"
        " # for the whole last one",
        title="text",
    ),
]
Topic = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^[^+#\x00-\x1f\x7f]{{1,{MAX_TOPIC_CHARACTERS}}}\Z",
        description=f"1 to {MAX_TOPIC_CHARACTERS} characters in one line without '+' and '#'",
        title="text",
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
    join_seconds: Seconds | None = None
    """The values of all topics of the filter that come within so long of the first are one reading, in which the levels
    that the wildcards stand for name them. Left out: each message is a reading."""
    kept_seconds: Seconds = 3600.0
    """A value that is joined counts for so long in later readings, where its topic says nothing new."""
    learn: bool = True
    """Readings become samples. With `false` they are predicted for alone."""
    predictions_topic: Topic | None = None
    """Where what the model says of each reading is published, at the same broker; nowhere where it is left out."""
    home_assistant: Topic | None = None
    """Home Assistant's discovery prefix, usually `homeassistant`: predictions and the agent appear there by themselves.
    Left out: they don't."""

    def __post_init__(self) -> None:
        """Raises ValueError for what every value by itself allows."""
        if self.join_seconds is not None and not {"+", "#"} & set(self.topic.split("/")):
            raise ValueError(
                f"join_seconds joins topics, {self.topic!r} is one: write + for the level that names values"
            )
        if self.home_assistant and not self.predictions_topic:
            raise ValueError("home_assistant needs predictions_topic: name a topic to publish predictions to")


async def follow_topic(settings: MqttTopicSettings, readings: ReadingIntake) -> None:
    """Take what is published, until the connection breaks.

    A retained message is no reading: it was published before, and would count again with each connection.

    Raises:
        MqttError: there is no connection any more.
        ConfigurationError: a file for TLS or the password can't be used.
    """

    def refuse_too_long(topic: str, size: int) -> None:
        readings.refuse("too_long", f"{size} bytes on {topic}; at most {MAX_READING_BYTES} are taken")

    def refuse_dropped() -> None:
        readings.refuse("too_many", f"it came while {MAX_WAITING_MESSAGES} others waited; publish less often")

    readings.tally.failure = readings.tally.failure or "it is not connected to its broker yet"
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
        taking = _Messages(settings, readings, newest)
        tasks = [
            group.create_task(_publish_predictions(client, settings, readings, newest)),
            group.create_task(_keep_announced(client, settings, readings, announced)),
            group.create_task(taking.join()),
        ]
        async for message in client.messages:
            if isinstance(message.payload, bytes) and message.payload:  # empty: taken back, or too long
                taking.take(message.topic.value, message.payload, is_retained=message.retain)
        for task in tasks:
            task.cancel()


class _Messages:
    """What becomes of the messages of one connection; `newest` has the reading that is to be predicted for."""

    def __init__(self, settings: MqttTopicSettings, readings: ReadingIntake, newest: Queue[Question]) -> None:
        self._settings = settings
        self._readings = readings
        self._newest = newest
        self._now = asyncio.get_running_loop().time
        self._bucket = TokenBucket(60 / settings.maximum_per_minute, settings.maximum_per_minute)
        self._full_at = self._now()
        self._joined = JoinedTopics(settings.topic, settings.kept_seconds)
        self._has_begun = asyncio.Event()

    def take(self, topic: str, payload: bytes, *, is_retained: bool) -> None:
        """A message is a reading, or a part of one. One that is retained is a value of the next reading at most."""
        if self._settings.join_seconds is not None:
            self._take_part(topic, payload, is_retained=is_retained)
        elif is_retained:
            self._readings.refuse("retained", f"{topic} was published before the agent listened")
        else:
            self._take_reading(payload)

    async def join(self) -> None:
        """Make a reading of what has come within `join_seconds` of the first part; until cancelled."""
        while True:
            await self._has_begun.wait()
            await asyncio.sleep(self._settings.join_seconds or 0.0)
            self._has_begun.clear()
            self._take_reading(msgspec.json.encode(self._joined.reading(self._now())))

    def _take_part(self, topic: str, payload: bytes, *, is_retained: bool) -> None:
        try:
            is_wanted = self._joined.put(topic, payload, self._now(), self._readings.names)
        except ReadingRefusedError as error:
            self._readings.refuse(error.reason, str(error))
            return
        if is_wanted and not is_retained:
            self._has_begun.set()

    def _take_reading(self, payload: bytes) -> None:
        if (after := self._bucket.after(self._full_at, self._now())) is None:
            most, remedy = self._settings.maximum_per_minute, "publish less often, or raise maximum_per_minute"
            self._readings.refuse("too_many", f"more than {most} readings a minute; {remedy}")
            return
        self._full_at = after
        if not self._settings.predictions_topic:
            if self._settings.learn:
                self._readings.take_payload(payload)
            return
        if (question := self._readings.take_and_ask(payload, learn=self._settings.learn)) is None:
            return
        if self._newest.full():
            self._newest.get_nowait()
            words = "a newer reading came before the prediction was made; publish less often"
            self._readings.refuse("not_predicted", words)
        self._newest.put_nowait(question)


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
