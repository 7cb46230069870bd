"""The messages of `home_assistant.json`, read by Home Assistant's own schema of MQTT discovery, templates included.

Home Assistant works with an older paho-mqtt than the project, so `make test-system` runs this in an environment of its
own.
"""

import json
import re
import sys
from pathlib import Path

from homeassistant.components.mqtt.sensor import DISCOVERY_SCHEMA
from homeassistant.helpers.template import Template

CONFIG_TOPIC = re.compile(r"homeassistant/sensor/[A-Za-z0-9_-]+/config")


def main() -> None:
    """Take every announcement, and render its template on what the agent publishes to the sensor's topic."""
    vectors = json.loads((Path(__file__).parent / "home_assistant.json").read_text())
    for vector in vectors:
        identifiers = set()
        for topic, announced in vector["announced"].items():
            assert CONFIG_TOPIC.fullmatch(topic), topic
            sensor = DISCOVERY_SCHEMA(dict(announced))
            identifiers.add(sensor["unique_id"])
            published = vector["published"][announced["state_topic"]]
            template = sensor["value_template"]
            assert isinstance(template, Template)
            state = template._env.from_string(template.template).render(value_json=published)
            assert state == vector["states"][announced["unique_id"]], (state, topic)
            assert len(state) <= 255
        assert len(identifiers) == len(vector["announced"])
    sys.stdout.write(f"{len(vectors)} tasks announced to Home Assistant\n")


if __name__ == "__main__":
    main()
