"""Home Assistant is told what `tests/vectors/home_assistant.json` says, which its own schema accepts."""

import json
from pathlib import Path

import msgspec
import pytest

from edge_agent.sources.mqtt_topic import MqttTopicSettings
from tests.vectors.home_assistant import home_assistant_vectors

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
