"""A pair of networks in a fleet of which some devices have hardly anything to learn from: every program as it ships."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.live_gans.pair_bundle import write_short_pair
from tests.support.broker import Broker
from tests.support.helper import SplitAgent
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until

TASK = "mnist_gan"
DEEPEST, SHALLOWEST = "g3ht-d3ht", "g3-d3"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The shipped pair with short rounds, of which two devices' updates make a version."""
    write_short_pair(tmp_path / "bundle", steps=2, buffer_size=2)
    return tmp_path / "bundle"


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker, bundle: Path) -> Iterator[SplitFleet]:
    """Of that task, with a helper."""
    fleet = SplitFleet(tmp_path, broker)
    fleet.serve(bundle)
    fleet.helper("cellar-pi")
    yield fleet
    fleet.end()


def picture(seed: int, digit: int, side: int = 28) -> dict[str, object]:
    """A sample as an agent takes it."""
    values = np.random.default_rng(seed).random(side * side, np.float32)
    return {"task": TASK, "inputs": {"picture": values.tolist(), "digit": [digit]}}


def device(fleet: SplitFleet, name: str, digits: list[int], cut: str) -> SplitAgent:
    """One that trains from every version, on a picture of each of these digits."""
    agent = fleet.agent(name, samples=0, cut=cut, new_version=True, minimum_samples=len(digits))
    for number, digit in enumerate(digits):
        assert agent.ask(picture(number, digit)) == {"ok": True}
    return agent


def senders(fleet: SplitFleet) -> set[str]:
    """Whose updates are accepted."""
    with fleet.coordinator.journal() as journal:
        return {row.device for row in journal.updates(TASK)}


def test_devices_with_one_class_a_few_pictures_or_of_another_size_hold_nobody_up(fleet: SplitFleet) -> None:
    usual = device(fleet, "usual", [number % 10 for number in range(20)], SHALLOWEST)
    device(fleet, "one-class", [7] * 20, DEEPEST)
    device(fleet, "five-pictures", [0, 1, 2, 3, 4], DEEPEST)
    other_size = fleet.agent("other-size", samples=0, cut=DEEPEST, new_version=True, minimum_samples=1)
    assert other_size.ask(picture(0, 3, side=32)) == {"ok": True}, "what the task takes is not known yet"
    until(lambda: "event=samples_dropped" in other_size.log(), "it is fetched, and the picture dropped with words")
    refused = other_size.ask(picture(0, 3, side=32))["error"]
    assert "1024" in refused, "it says how many values came"
    assert "784" in refused, "and how many are wanted"
    wanted = {"usual", "one-class", "five-pictures", "cellar-pi"}
    until(lambda: senders(fleet) >= wanted, "all who can have sent something")
    until(lambda: fleet.versions() >= 2, "versions are made")
    assert "other-size" not in senders(fleet)
    assert "round_failed" not in usual.log()
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
