"""`edge-agent predict`: the running agent answers with the current weights, by a child that is there when needed."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from paho.mqtt import client as paho

from bundle_runtime.runner import BundleRunner
from edge_agent.client import AgentClient
from fleet_protocol.codec import read_weights
from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.process import environment
from tests.support.waiting import until


@pytest.fixture
def agent(tmp_path: Path, broker: Broker) -> Iterator[AgentProcess]:
    bundle = copy_digits_bundle(tmp_path / "digits", buffer_size=2)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "pi", "pi", broker, coordinator.public_key)
    agent.start()
    until(lambda: agent.status()["versions"] == {"digits": 0}, "the manifest has come")
    agent.bundle = bundle
    yield agent
    agent.kill()
    coordinator.kill()


def predict(agent: AgentProcess, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edge_agent.cli", "predict", "--config", str(agent.configuration)]
    return subprocess.run(
        [*command, *arguments], input=given, capture_output=True, text=True, check=False, env=environment()
    )


LIVE = """
[[sources]]
kind = "mqtt"
task = "digits"
inputs = ["$.pixels"]
settings.topic = "camera/one"
settings.broker = {{ host = "{host}", port = {port} }}
settings.learn = false
settings.predictions_topic = "camera/one/digit"
settings.home_assistant = "homeassistant"
"""


def readings(count: int) -> list[dict[str, Any]]:
    return [{"inputs": sample(number)["inputs"]} for number in range(count)]


def children(agent: AgentProcess) -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process(agent.pid).children()]


def test_predictions_are_those_of_the_bundle_and_what_does_not_fit_is_said(agent: AgentProcess, tmp_path: Path) -> None:
    bundle = agent.bundle
    weights = read_weights(bundle.weights, bundle.description.parameters)
    inputs = np.array([each["inputs"] for each in readings(3)], np.float32)
    expected = BundleRunner(bundle.description, bundle.files).predict(weights, inputs).argmax(axis=1).tolist()

    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(each) for each in readings(3)))
    found = predict(agent, "--file", str(tmp_path / "a.jsonl"), "--json")
    assert (found.returncode, found.stderr) == (0, "")
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    assert [each["prediction"]["value"] for each in answers] == expected
    assert {each["version"] for each in answers} == {0}
    assert [each["prediction"]["confidence"] for each in answers] == [
        max(each["prediction"]["probabilities"]) for each in answers
    ]
    assert any("edge_agent.training.predictor" in child for child in children(agent))

    one = predict(agent, json.dumps(readings(1)[0]))
    assert one.stdout.startswith(f"{expected[0]} (")
    assert one.stdout.endswith("%), version 0\n")

    bad = predict(agent, "--file", "-", given='{"inputs": [1]}\nno json\n' + json.dumps(readings(1)[0]) + "\n")
    first, second, third = bad.stdout.splitlines()
    assert "input has 1 values; digits takes 64" in first
    assert "is not JSON" in second
    assert third == one.stdout.strip()
    assert bad.returncode == 1

    missing = predict(agent, "--task", "other", json.dumps(readings(1)[0]))
    assert (missing.returncode, missing.stderr) == (2, "edge-agent: --task 'other': agent.toml lists digits\n")

    with AgentClient(agent.socket) as client:
        assert client.predict("digits", readings(1)[0])["prediction"]["value"] == expected[0]
    assert agent.status()["samples"] == {"digits": 0}


def test_lines_that_are_added_to_a_file_are_followed(agent: AgentProcess, tmp_path: Path) -> None:
    file, out = tmp_path / "a.jsonl", tmp_path / "out"
    line = json.dumps(readings(1)[0]) + "\n"
    file.write_text(line)
    command = [sys.executable, "-P", "-m", "edge_agent.cli", "predict", "--config", str(agent.configuration)]
    with out.open("w") as said:
        following = subprocess.Popen(
            [*command, "--file", str(file), "--follow"],
            stdout=said,
            env=environment(),
            # A test run in the background of a shell ignores it, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )
    until(lambda: out.read_text().count("\n") == 1, "the first line is answered")
    with file.open("a") as growing:
        growing.write(line[:10])
        growing.flush()
        growing.write(line[10:] + line)
    until(lambda: out.read_text().count("\n") == 3, "those that were added are answered")
    file.write_text(line)
    until(lambda: out.read_text().count("\n") == 4, "the file was begun anew")
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 0


def test_agent_that_does_not_run_is_said(tmp_path: Path, agent: AgentProcess) -> None:
    agent.stop()
    found = predict(agent, "{}")
    assert found.returncode == 2
    assert "start the agent: systemctl start edge-agent" in found.stderr


def test_live_readings_are_predicted_for_on_a_local_topic(agent: AgentProcess, broker: Broker) -> None:
    agent.stop()
    with agent.configuration.open("a") as file:
        file.write(LIVE.format(host=broker.host, port=broker.port))
    agent.start()
    heard: list[dict[str, Any]] = []
    shown: dict[str, bytes] = {}
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2)

    def hear(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == "camera/one/digit":
            heard.append(json.loads(message.payload))
        else:
            shown[message.topic] = message.payload

    listener.on_message = hear
    listener.connect(broker.host, broker.port)
    listener.subscribe([("camera/one/digit/#", 1), ("homeassistant/#", 1)])
    listener.loop_start()
    reading = {"pixels": readings(1)[0]["inputs"]}
    expected = json.loads(predict(agent, json.dumps(reading), "--json").stdout)["prediction"]

    def publish_until_heard() -> bool:
        listener.publish("camera/one", json.dumps(reading), qos=1).wait_for_publish()
        return bool(heard)

    until(publish_until_heard, "a prediction is published")
    listener.publish("camera/one", "no json", qos=1)
    until(
        lambda: agent.status()["sources"][1]["refused"].get("not_predicted"), "what can't be predicted for is counted"
    )
    announced = "homeassistant/sensor/edgeflock_testfleet_pi_digits_{}/config"
    wanted = {announced.format(name) for name in ("prediction", "confidence", "agent", "reason", "samples", "version")}
    until(lambda: wanted | {"camera/one/digit/agent", "camera/one/digit/available"} <= shown.keys(), "it is announced")
    assert shown["camera/one/digit/available"] == b"online"
    said = json.loads(shown["camera/one/digit/agent"])
    assert (said["device"], said["samples"], said["versions"]) == ("pi", {"digits": 0}, {"digits": 0})
    assert said["tasks"]["digits"]["reason"]
    agent.kill()
    until(lambda: shown["camera/one/digit/available"] == b"offline", "the broker says that the agent is gone")
    agent.start()
    listener.loop_stop()
    assert heard[0]["prediction"] == expected
    assert agent.status()["samples"] == {"digits": 0}
    assert agent.status()["sources"][1]["taken"] == 0
