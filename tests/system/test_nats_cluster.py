"""A fleet on a cluster of three NATS servers lives through the loss of any one of them (docs/brokers.md)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nats import NODES, NatsFleet
from tests.support.waiting import until

DEVICES = 6
FIRST_UPDATES = 12
LEARN_SECONDS = 120.0

pytestmark = pytest.mark.long


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[NatsFleet]:
    fleet = NatsFleet(tmp_path, DEVICES)
    fleet.start()
    yield fleet
    fleet.kill()


def test_fleet_learns_on_while_any_one_node_is_dead_and_loses_nothing(fleet):
    with fleet.fed():
        until(lambda: fleet.accepted() >= FIRST_UPDATES, "the fleet learns", LEARN_SECONDS)
        for number in range(NODES):  # the first has everybody's connections, until it is killed
            node = fleet.cluster.nodes[number]
            node.kill()
            before = {agent.name: agent.status()["accepted_updates"] for agent in fleet.agents}

            def everyone_has_more(before=before):
                return all(agent.status().get("accepted_updates", 0) > before[agent.name] for agent in fleet.agents)

            until(everyone_has_more, f"all devices go on without {node.name}", LEARN_SECONDS)
            node.rejoin()
    fleet.finish()

    verdict = fleet.audit()

    assert (verdict.lost, verdict.duplicated, verdict.waiting) == (0, 0, 0)
