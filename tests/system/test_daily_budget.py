"""A budget of the day stops a training that has begun, and nothing of it is left.

The shipped programs on a real Mosquitto.
"""

from pathlib import Path

import msgspec

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until

BUDGET_SECONDS = 1.0


def endless_bundle(folder: Path) -> None:
    """One whose rounds take longer than any day's budget here."""
    description = copy_digits_bundle(folder, buffer_size=1).description
    training = msgspec.structs.replace(description.training, steps=50_000, epochs_per_round=0, optimiser="sgd")
    changed = msgspec.structs.replace(description, training=training)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    load_bundle(folder)


def test_training_that_passes_the_budget_of_the_day_is_stopped_and_leaves_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    endless_bundle(tmp_path / "digits")
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    text = agent.configuration.read_text()
    agent.configuration.write_text(text.replace("[guards]", f"[guards]\ndaily_cpu_seconds = {BUDGET_SECONDS}"))
    agent.start()
    try:
        agent.feed(4)
        until(lambda: "event=round_stopped" in agent.log(), "the training is stopped")
        shown = agent.status()
        assert shown["tasks"]["digits"]["state"] == "sleeping"
        assert (
            f"seconds of processor time are used today, the budget is {BUDGET_SECONDS:g}"
            in (shown["tasks"]["digits"]["reason"])
        )
        assert (shown["waiting_updates"], shown["new_samples"]) == (0, {"digits": 4})
        until(lambda: "event=guard_refused" in agent.log(), "the day has no other round")
        agent.stop()
        agent.start()
        until(lambda: agent.log().count("the budget is") >= 3, "a restart gives no new budget")
        assert agent.log().count("event=round_stopped") == 1
    finally:
        agent.kill()
        coordinator.kill()
