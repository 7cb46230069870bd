"""Devices that train at every version: each round begins with the device's last update in its weights."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until

ROUNDS = 5
"""Of each device."""


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[SplitFleet]:
    """Of which two updates make a version, so that there is nearly always one of the others' when a round ends."""
    fleet = SplitFleet(tmp_path, broker)
    fleet.begin(steps=20, buffer_size=2)
    fleet.helper("cellar-pi")
    yield fleet
    fleet.end()


def test_rounds_begin_with_a_version_that_has_the_devices_last_update(fleet: SplitFleet) -> None:
    agents = [fleet.agent(name, new_version=True) for name in ("kitchen", "attic", "shed")]
    until(lambda: fleet.accepted_of_devices() >= ROUNDS * len(agents), "all devices have trained some rounds")
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
    with fleet.coordinator.journal() as journal:
        rows = [row for row in journal.updates(fleet.task) if row.aggregate is not None]
    follow = [pair for agent in agents for pair in pairwise(row for row in rows if row.device == agent.name)]
    without = [this for last, this in follow if this.base_version < (last.aggregate or 0)]
    assert follow
    assert 4 * len(without) <= len(follow), "a version is sometimes on its way when an update comes, and is not often"
