"""Home Assistant is told what `tests/vectors/home_assistant.json` says, which its own schema accepts."""

import json
from pathlib import Path

import msgspec
import pytest

from edge_agent.sources.home_assistant import AnnouncedTopics, announcements
from edge_agent.sources.mqtt_topic import MqttTopicSettings
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from tests.vectors.home_assistant import home_assistant_vectors
from workbench.recipe_folder import find_bundle

VECTORS = Path(__file__).parents[1] / "vectors" / "home_assistant.json"


def test_announcements_are_those_that_home_assistant_has_accepted() -> None:
    assert home_assistant_vectors() == json.loads(VECTORS.read_text())


def test_every_sensor_has_a_state_to_show() -> None:
    for vector in json.loads(VECTORS.read_text()):
        announced = vector["announced"].values()
        assert {sensor["unique_id"] for sensor in announced} == set(vector["states"])
        assert {sensor["state_topic"] for sensor in announced} == set(vector["published"])
        assert len({json.dumps(sensor["device"]) for sensor in announced}) == 1


def test_home_assistant_without_a_topic_for_predictions_is_refused() -> None:
    settings = {"topic": "a", "broker": {"host": "broker.example"}, "home_assistant": "homeassistant"}
    with pytest.raises(msgspec.ValidationError, match="home_assistant needs predictions_topic"):
        msgspec.convert(settings, MqttTopicSettings)
    with pytest.raises(msgspec.ValidationError, match="matching regex"):
        msgspec.convert(settings | {"predictions_topic": "a/#"}, MqttTopicSettings)


def test_forecast_has_the_unit_of_its_readings() -> None:
    bundle = find_bundle("temperature_forecast")
    description = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    topics = AnnouncedTopics("edgeflock/room/forecast")
    announced = announcements("homeassistant", "home", "pi", description, topics)
    units = {topic.split("/")[2]: json.loads(said).get("unit_of_measurement") for topic, said in announced.items()}
    name = "edgeflock_home_pi_temperature_forecast"
    agent = dict.fromkeys(f"{name}_{what}" for what in ("agent", "reason", "samples", "version"))
    assert units == agent | {f"{name}_prediction": "°C"}


def test_agent_that_knows_no_version_yet_has_a_state_to_show() -> None:
    (vector, *_) = json.loads(VECTORS.read_text())
    (version,) = (each for each in vector["announced"].values() if each["unique_id"].endswith("_version"))
    assert "default('unknown')" in version["value_template"]
