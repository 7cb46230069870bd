"""An agent that waits for drift sleeps on samples like its earlier ones, and trains when its inputs have moved."""

from pathlib import Path

from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until


def test_agent_wakes_when_its_inputs_have_moved(tmp_path: Path, broker: Broker) -> None:
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key, new_samples=0)
    text = agent.configuration.read_text()
    agent.configuration.write_text(text.replace("new_samples = 0", "new_samples = 0, drift = 1.0, look_samples = 20"))
    try:
        agent.start()
        until(lambda: agent.status()["versions"] == {"digits": 0}, "the manifest came")
        agent.feed(40)
        until(lambda: "event=samples_compared" in agent.log(), "they were looked at")
        assert "found=nothing" in agent.log()
        assert agent.status()["tasks"]["digits"]["waits_for"] == "a shift of 1 in an input"
        for number in range(20):
            darker = [0.5 * value + 0.25 for value in sample(number)["inputs"]]
            assert agent.ask(sample(number) | {"inputs": darker}) == {"ok": True}
        until(lambda: agent.status()["accepted_updates"] == 1, "it trained")
        assert 'found="input drift"' in agent.log()
    finally:
        agent.kill()
        coordinator.kill()
