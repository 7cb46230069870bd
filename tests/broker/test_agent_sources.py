"""Readings from a topic of a real Mosquitto become samples of the shipped agent; bad ones are counted by reason."""

from pathlib import Path
from typing import Any

from edge_agent.mqtt.broker_client import MAX_WAITING_MESSAGES
from fleet_protocol.keys import SigningKey
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.waiting import until

SOURCE = """
[[sources]]
kind = "mqtt"
task = "digits"
inputs = ["$.temperature", "$.humidity"]
label = "$.occupied"
words = {{ yes = 1 }}
settings.topic = "zigbee2mqtt/+"
settings.broker = {{ host = "{host}", port = {port}, protocol = "3.1.1" }}
settings.maximum_per_minute = 20
"""
"""In MQTT 5 the broker itself would keep too long messages to itself."""
GOOD = b'{"temperature":21.5,"humidity":41.2,"linkquality":255,"occupied":"yes"}'


def source_of(agent: AgentProcess) -> dict[str, Any]:
    return next((each for each in agent.status().get("sources", []) if each["source"] == "mqtt"), {})


def publish(broker: Broker, *payloads: bytes, retain: bool = False) -> None:
    from paho.mqtt import publish as paho  # noqa: PLC0415

    paho.multiple(
        [("zigbee2mqtt/room", payload, 1, retain) for payload in payloads], hostname=broker.host, port=broker.port
    )


def test_readings_of_a_local_topic_are_taken_and_bad_ones_are_counted(tmp_path: Path, broker: Broker) -> None:
    agent = AgentProcess(tmp_path / "device", "pi", broker, SigningKey.generate().verify_key)
    with agent.configuration.open("a") as file:
        file.write(SOURCE.format(host=broker.host, port=broker.port))
    publish(broker, GOOD, retain=True)
    agent.start()
    until(lambda: source_of(agent).get("refused") == {"retained": 1}, "the retained message is refused")
    bad = {
        b"warm": "not_json",
        b'{"temperature":"21,5","humidity":1,"occupied":0}': "not_a_number",
        b'{"temperature":21.5}': "field_missing",
        b'{"temperature":1e300,"humidity":1,"occupied":0}': "outside_schema",
        b"[" + b"1," * 200_000 + b"1]": "too_long",
    }
    publish(broker, GOOD, *bad, GOOD)
    until(lambda: source_of(agent)["taken"] == 2, "both good readings are samples")
    assert source_of(agent)["refused"] == {"retained": 1} | dict.fromkeys(bad.values(), 1)
    assert agent.status()["samples"] == {"digits": 2}
    publish(broker, *[GOOD] * 100)
    until(lambda: source_of(agent)["refused"].get("too_many", 0) > 50, "a flood is refused")
    assert agent.ask({"command": "status"})["samples"]["digits"] < 50
    broker.kill()
    until(lambda: "Mqtt" in source_of(agent)["failure"], "the source says that its broker is gone")
    broker.start()
    until(lambda: not source_of(agent)["failure"], "the source is back")
    agent.stop()


def test_every_message_of_a_flood_is_counted_however_fast_it_comes(tmp_path: Path, broker: Broker) -> None:
    agent = AgentProcess(tmp_path / "device", "pi", broker, SigningKey.generate().verify_key)
    with agent.configuration.open("a") as file:
        file.write(SOURCE.format(host=broker.host, port=broker.port))
    publish(broker, GOOD, retain=True)
    agent.start()
    until(lambda: source_of(agent).get("refused"), "the source listens")
    flood = 4 * MAX_WAITING_MESSAGES
    with agent.paused():
        publish(broker, *[GOOD] * flood)

    def counted() -> int:
        found = source_of(agent)
        return int(found["taken"]) + sum(found["refused"].values())

    until(lambda: counted() >= 1 + flood, "all are counted")
    assert counted() == 1 + flood
    agent.stop()


JOINED = """
[[sources]]
kind = "mqtt"
task = "digits"
inputs = [{inputs}]
label = "$.occupied"
words = {{ on = 1, off = 0 }}
settings.topic = "{topic}"
settings.join_seconds = 2
settings.broker = {{ host = "{host}", port = {port} }}
"""
PUBLISHERS = {
    "ESPHome": ('"$.temperature", "$.humidity"', "kitchen/sensor/+/state"),
    "statestream": ("\"$['sensor/kitchen_temperature']\", \"$['sensor/kitchen_humidity']\"", "homeassistant/+/+/state"),
    "Zigbee2MQTT": ('"$.temperature", "$.humidity"', "zigbee2mqtt/kitchen/+"),
}
"""Inputs and topics of programs that publish each value by itself."""
FIRST_VALUES = [
    *(("kitchen/sensor/temperature/state", "21.5"), ("kitchen/sensor/humidity/state", "41.2")),
    *(
        ("homeassistant/sensor/kitchen_temperature/state", "21.5"),
        ("homeassistant/sensor/kitchen_humidity/state", "41"),
    ),
    *(("zigbee2mqtt/kitchen/temperature", "21.5"), ("zigbee2mqtt/kitchen/humidity", "41.2")),
]
NOT_ASKED_FOR = [("kitchen/sensor/wifi_signal/state", "-61"), ("homeassistant/sensor/sun/state", "nan")]
LABELS = [("kitchen/sensor/occupied/state", "on"), ("zigbee2mqtt/kitchen/occupied", "off")]


def test_values_that_programs_publish_one_by_one_are_joined_to_readings(tmp_path: Path, broker: Broker) -> None:
    from paho.mqtt import publish as paho  # noqa: PLC0415

    def say(*messages: tuple[str, str], retain: bool) -> None:
        where = {"hostname": broker.host, "port": broker.port}
        paho.multiple([(topic, value, 1, retain) for topic, value in messages], **where)

    def taken() -> list[int]:
        return [each["taken"] for each in agent.status()["sources"][1:]]

    agent = AgentProcess(tmp_path / "device", "pi", broker, SigningKey.generate().verify_key)
    with agent.configuration.open("a") as file:
        for inputs, topic in PUBLISHERS.values():
            text = JOINED.format(inputs=inputs, topic=topic, host=broker.host, port=broker.port)
            file.write(text.replace("$.occupied", "$['sensor/occupied']") if "homeassistant" in topic else text)
    say(*FIRST_VALUES, ("homeassistant/sensor/occupied/state", "off"), *LABELS, retain=True)
    agent.start()
    until(lambda: [each["failure"] for each in agent.status()["sources"]] == [""] * 4, "all sources listen")
    say(*NOT_ASKED_FOR, retain=False)
    say(("kitchen/sensor/temperature/state", "21.6"), ("kitchen/sensor/humidity/state", "41.0"), retain=True)
    say(("homeassistant/sensor/kitchen_temperature/state", "21.6"), ("zigbee2mqtt/kitchen/humidity", "41"), retain=True)
    until(lambda: taken() == [1, 1, 1], "what came together is one reading, with what was retained of the rest")
    say(("kitchen/sensor/humidity/state", "unavailable"), ("zigbee2mqtt/kitchen/temperature", "warm"), retain=True)
    until(lambda: agent.status()["sources"][3]["refused"] == {"not_a_number": 1}, "a value that is none is said")
    until(lambda: taken()[0] == 2, "a value that is missing is taken as that")
    assert agent.status()["samples"] == {"digits": 4}
    agent.stop()
