"""Rooms that publish what Zigbee2MQTT would, at a real broker, and hear what devices predict."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from workbench.demo.brokers import BrokerPlan
from workbench.demo.fleet_files import DeviceFiles, FleetFiles

Reading = Mapping[str, float | str]

PUBLISH_SECONDS = 60.0
"""Longest wait for the broker."""
HOUR = timedelta(hours=1)
PUBLISHED = {"temperature": "temperature", "humidity": "humidity", "light": "illuminance", "carbon_dioxide": "co2"}
"""What Zigbee2MQTT calls the quantities."""

SOURCES = """
[[sources]]
kind = "mqtt"
task = "{task}"
fields = {fields}
time = "$.last_seen"

[sources.settings]
topic = "zigbee2mqtt/{room}"
broker = {{ host = "{host}", port = {port} }}
maximum_per_minute = 60000
predictions_topic = "edgeflock/{room}/{task}"

[[sources]]
kind = "mqtt"
task = "{task}"
fields = {{ occupied = "$.occupied" }}

[sources.settings]
topic = "presence/{room}"
broker = {{ host = "{host}", port = {port} }}
maximum_per_minute = 60000
"""
"""The second source is of no use to a task that finds its labels by itself, and gets nothing."""


@dataclass(frozen=True, slots=True)
class Room:
    """One room's device, and its readings in time order."""

    device: DeviceFiles
    readings: Sequence[Reading]


class House:
    """Publishes what rooms measure, and counts the predictions that come back."""

    def __init__(self, broker: BrokerPlan, task: str) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._hear
        self._client.max_queued_messages_set(0)
        self._client.connect(broker.host, broker.port)
        self._client.subscribe(f"edgeflock/+/{task}", 1)
        self._client.loop_start()
        self.predictions = 0

    def publish(self, messages: Iterable[tuple[str, Mapping[str, object]]]) -> int:
        """Return how many, when the broker has them."""
        sent = [self._client.publish(topic, json.dumps(payload), 1) for topic, payload in messages]
        for each in sent:
            each.wait_for_publish(PUBLISH_SECONDS)
        return len(sent)

    def close(self) -> None:
        """End the connection."""
        self._client.disconnect()
        self._client.loop_stop()

    def _hear(self, _client: paho.Client, _data: object, _message: paho.MQTTMessage) -> None:
        self.predictions += 1


def rooms_of(readings: Sequence[Reading], files: FleetFiles) -> list[Room]:
    """Whole days for each, about as many readings as whole days allow."""
    days = [str(reading["time"])[:10] for reading in readings]
    middles = {day: days.index(day) + days.count(day) / 2 for day in days}
    owner = {day: int(middle * len(files.devices) / len(days)) for day, middle in middles.items()}
    return [
        Room(device, [reading for reading, day in zip(readings, days, strict=True) if owner[day] == number])
        for number, device in enumerate(files.devices)
    ]


def sources_of(room: Room, task: str, broker: BrokerPlan) -> str:
    """The tables of agent.toml for a room's device."""
    fields = ", ".join(f'{field} = "$.{name}"' for field, name in PUBLISHED.items())
    return SOURCES.format(
        fields=f"{{ {fields} }}", task=task, room=room.device.name, host=broker.host, port=broker.port
    )


def messages_of(room: Room, hour: int, *, labelled: bool) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The readings of one virtual hour and, where they are asked for, who was there in the hour before."""
    begin = _moment(room.readings[0]) + hour * HOUR
    for reading in room.readings:
        at = _moment(reading)
        if begin <= at < begin + HOUR:
            values = {name: reading[field] for field, name in PUBLISHED.items()}
            yield f"zigbee2mqtt/{room.device.name}", {**values, "linkquality": 255, "last_seen": at.isoformat()}
        elif labelled and begin - HOUR <= at < begin:
            yield f"presence/{room.device.name}", {"time": at.isoformat(), "occupied": int(reading["occupied"])}


def _moment(reading: Reading) -> datetime:
    return datetime.fromisoformat(str(reading["time"]))
