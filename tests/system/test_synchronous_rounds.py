"""A synchronous task over a real Mosquitto: a round ends at its deadline, and a device has one part in it."""

from pathlib import Path

from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until

ROUND_SECONDS = 8.0


def test_agent_waits_for_the_next_round(tmp_path: Path, broker: Broker) -> None:
    copy_digits_bundle(
        tmp_path / "digits", strategy="fedavg", buffer_size=2, max_staleness=0, round_seconds=ROUND_SECONDS
    )
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    try:
        coordinator.start_serving()
        agent.start()
        agent.feed(4)
        until(lambda: agent.status()["accepted_updates"] == 1, "its part in the first round")
        agent.feed(4, first=4)
        until(lambda: "event=not_selected" in agent.log(), "a second trigger in the same round waits")
        until(lambda: agent.status()["accepted_updates"] == 2, "its part in the second round")
        with coordinator.journal() as journal:
            rows = list(journal.updates("digits"))
        assert [(row.base_version, row.staleness) for row in rows] == [(0, 0), (1, 0)]
        assert rows[0].aggregate == 1
    finally:
        agent.kill()
        coordinator.kill()
