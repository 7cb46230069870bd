"""What Home Assistant's MQTT discovery is told, so that an agent appears there by itself. Pure.

Payloads as in https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery; Home Assistant's own schema checks them
in `tests/vectors/home_assistant_opinion.py`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.task_description import TaskDescription

MAX_STATE_CHARACTERS = 255
"""Home Assistant takes no longer state."""

_NO_IDENTIFIER = re.compile(r"[^A-Za-z0-9_-]")
_KINDS_WITH_CONFIDENCE = {"class", "multi_label"}


@dataclass(frozen=True, slots=True)
class AnnouncedTopics:
    """Where the agent publishes: predictions, its state as JSON, and whether it is there (`online` or `offline`)."""

    predictions: str

    @property
    def state(self) -> str:
        """Retained, whenever it has changed."""
        return f"{self.predictions}/agent"

    @property
    def available(self) -> str:
        """Retained, and the connection's last will."""
        return f"{self.predictions}/available"


class _Device(msgspec.Struct, frozen=True):
    identifiers: list[str]
    name: str
    manufacturer: str = "edgeflock"


class _Origin(msgspec.Struct, frozen=True):
    name: str = "edgeflock"


class Sensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entity, as `homeassistant/sensor/<unique_id>/config` describes it."""

    name: str
    unique_id: str
    device: _Device
    origin: _Origin
    state_topic: str
    value_template: str
    availability_topic: str
    json_attributes_topic: str = ""
    unit_of_measurement: str = ""
    icon: str = ""
    entity_category: str = ""


def announcements(
    prefix: str, fleet: str, device: str, description: TaskDescription, topics: AnnouncedTopics
) -> Mapping[str, bytes]:
    """Retained messages by their topics: for each head a prediction and, with classes, a confidence; and the agent's
    state, with all that it says of itself as attributes, beside what it says of this task. `prefix` is Home
    Assistant's own.
    """
    owner = _Device([f"edgeflock-{fleet}-{device}"], f"edgeflock {device}")
    identifier = f"edgeflock_{fleet}_{device}_{description.task}"
    sensors = [
        *_prediction_sensors(identifier, owner, description, topics),
        *_agent_sensors(identifier, owner, description.task, topics),
    ]
    return {
        f"{prefix}/sensor/{_NO_IDENTIFIER.sub('_', sensor.unique_id)}/config": msgspec.json.encode(sensor)
        for sensor in sensors
    }


def _agent_sensors(identifier: str, owner: _Device, task: str, topics: AnnouncedTopics) -> Iterator[Sensor]:
    """What the agent's status says; the names of tasks may have a `-`, so they are no attributes of a template."""
    state = Sensor(
        name="Agent",
        unique_id=f"{identifier}_agent",
        device=owner,
        origin=_Origin(),
        state_topic=topics.state,
        value_template="{{ value_json.state }}",
        availability_topic=topics.available,
        json_attributes_topic=topics.state,
        icon="mdi:school",
        entity_category="diagnostic",
    )
    yield state
    for name, template in (
        ("reason", f"(value_json.tasks['{task}'].reason)[:{MAX_STATE_CHARACTERS}]"),
        ("samples", f"value_json.samples['{task}']"),
        ("version", f"value_json.versions['{task}'] | default('unknown')"),
    ):
        yield msgspec.structs.replace(
            state,
            name=f"{task} {name}",
            unique_id=f"{identifier}_{name}",
            value_template=f"{{{{ {template} }}}}",
            json_attributes_topic="",
        )


def _prediction_sensors(
    identifier: str, owner: _Device, description: TaskDescription, topics: AnnouncedTopics
) -> Iterator[Sensor]:
    for head, label in description.each_label.items():
        title = f"{description.task} {head}".strip()
        place = f"value_json.heads['{head}']" if head else "value_json.prediction"
        unique = f"{identifier}_{head}" if head else identifier

        def sensor(name: str, suffix: str, template: str, unit: str = "", unique: str = unique) -> Sensor:
            return Sensor(
                name=name,
                unique_id=f"{unique}_{suffix}",
                device=owner,
                origin=_Origin(),
                state_topic=topics.predictions,
                value_template=template,
                availability_topic=topics.available,
                unit_of_measurement=unit,
            )

        yield sensor(title, "prediction", _value_template(place, label), _unit_of(description))
        if label.kind in _KINDS_WITH_CONFIDENCE:
            yield sensor(f"{title} confidence", "confidence", f"{{{{ ({place}.confidence * 100) | round(1) }}}}", "%")


def _unit_of(description: TaskDescription) -> str:
    """Of a number that readings have too."""
    plan = description.readings
    return plan.fields[plan.label.field].unit if plan and plan.label else ""


def _value_template(place: str, label: LabelSchema) -> str:
    """Several values are written one behind the other, as many as a state holds."""
    if label.is_index or label.kind == "reconstruction" or (label.kind == "regression" and label.size == 1):
        return f"{{{{ {place}.value }}}}"
    values = f"({place}.value if {place}.value is iterable else [{place}.value])"
    return f"{{{{ ({values} | join(' '))[:{MAX_STATE_CHARACTERS}] }}}}"
