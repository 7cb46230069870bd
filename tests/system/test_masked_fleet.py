"""Updates summed behind masks over a real Mosquitto: shipped agents, helpers and coordinator, some of them killed."""

from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.kinds import MASKED_UPDATE
from fleet_protocol.privacy.noise_shares import NoiseShares
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.masked_fleet import MaskHelperProcess, masked_digits, owned
from tests.support.process import TREE
from tests.support.replay import versions_replayed
from tests.support.waiting import until


class MaskedFleet:
    def __init__(
        self, folder: Path, broker: Broker, helpers: int, /, *, key_holder: int | None = None, **plan: Any
    ) -> None:
        devices = 3
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "bundle"])
        key = self.coordinator.public_key
        self.helpers = [
            MaskHelperProcess(folder / f"mask-{n}", f"mask-{n}", broker, key, holds_key=n == key_holder)
            for n in range(helpers)
        ]
        self.devices = [AgentProcess(folder / f"pi-{n}", f"pi-{n}", broker, key) for n in range(devices)]
        masked_digits(folder / "bundle", self.helpers, devices, **plan)
        for helper in self.helpers:
            helper.knows(self.devices)
        for device in self.devices:
            owned(device, self.helpers, at_least="noised masks" if "noise" in plan else "masks")

    def start(self) -> None:
        self.coordinator.start_serving()
        for process in (*self.helpers, *self.devices):
            process.start()

    def end(self) -> None:
        for process in (*self.devices, *self.helpers, self.coordinator):
            process.kill()

    def version(self) -> int:
        with self.coordinator.journal() as journal:
            return journal.newest_number("digits")

    def accepted(self) -> int:
        return sum(device.status()["accepted_updates"] for device in self.devices)


@pytest.fixture
def fleet_of(tmp_path, broker):
    fleets = []

    def make(helpers: int, **plan: Any) -> MaskedFleet:
        fleets.append(MaskedFleet(tmp_path, broker, helpers, **plan))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()


def test_simple_mode_with_three_helpers_a_device_gone_and_everybody_killed_once(fleet_of):
    fleet = fleet_of(3, colluding=2)
    fleet.start()
    for device in fleet.devices[:2]:
        device.feed(4)
    until(lambda: all("event=update_awaits_cohort" in each.log() for each in fleet.devices[:2]), "two updates wait")
    fleet.devices[2].kill()
    for process in (fleet.coordinator, fleet.helpers[1], fleet.devices[0]):
        process.kill()
    fleet.coordinator.start_serving()
    fleet.helpers[1].start()
    fleet.devices[0].start()
    until(lambda: fleet.version() == 1, "the least devices are summed when the time is over")
    until(lambda: fleet.devices[1].status()["accepted_updates"] == 1, "it is told that its update counts")
    until(lambda: fleet.devices[0].status()["waiting_updates"] == 0, "so is the one that was killed")
    shown = fleet.coordinator.tasks("show", "digits")["cohorts"]
    assert [(each["state"], each["version"]) for each in shown] == [("open", None), ("summed", 1)]
    with fleet.coordinator.journal() as journal:
        assert versions_replayed(journal, "digits") == 1
        assert {row.kind for row in journal.updates("digits")} == {MASKED_UPDATE.number}
    assert "event=round_spooled" in fleet.devices[1].log()


def test_replicated_mode_with_one_of_four_helpers_dead_and_weights_and_positions_of_momentum(fleet_of):
    plan = {"keep_fraction": 0.5, "positions": "momentum", "staleness_weighting": "polynomial"}
    fleet = fleet_of(4, wait_seconds=3600.0, **plan)
    fleet.start()
    fleet.helpers[2].kill()
    for round_number in (1, 2):
        for device in fleet.devices:
            device.feed(4, first=4 * round_number)
        until(lambda number=round_number: fleet.version() == number, f"version {round_number} is made")
        until(lambda number=round_number: fleet.accepted() == 3 * number, "devices are told that their updates count")
    with fleet.coordinator.journal() as journal:
        assert versions_replayed(journal, "digits") == 2


def test_devices_add_noise_count_their_updates_across_kills_and_send_no_more_than_their_bundle_allows(fleet_of):
    fleet = fleet_of(2, wait_seconds=3600.0, noise=NoiseShares(epsilon=8.0, norm=0.5, at_most=2))
    fleet.start()
    for number in (1, 2):
        for device in fleet.devices:
            device.feed(4, first=4 * number)
        until(lambda number=number: fleet.version() == number, f"version {number} is made")
        until(lambda number=number: fleet.accepted() == 3 * number, "devices are told that their updates count")
    device = fleet.devices[0]
    device.kill()
    device.start()
    device.feed(4, first=12)
    until(lambda: "event=not_yet task=digits" in device.log(), "it sends no third one")
    assert "privacy.masks.noise.at_most = 2" in device.log()
    assert 7 < device.status()["told_of_device"]["digits"] <= 8
    shown = fleet.coordinator.tasks("show", "digits")["noise_shares"]
    assert shown["most_updates_of_a_device"] == 2
    assert shown["epsilon"] == pytest.approx(device.status()["told_of_device"]["digits"])
    with fleet.coordinator.journal() as journal:
        assert versions_replayed(journal, "digits") == 2


@pytest.mark.parametrize(("helpers", "colluding"), [(1, 0), pytest.param(2, 1, marks=pytest.mark.long)])
def test_encrypted_updates_with_a_device_that_lacks_tenseal_and_everybody_killed_once(
    fleet_of, helpers, colluding, tmp_path
):
    fleet = fleet_of(helpers, colluding=colluding, key_holder=helpers - 1)
    lacking = fleet.devices[2]
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "sitecustomize.py").write_text('import sys\nsys.modules["tenseal"] = None\n')
    lacking.variables = {"PYTHONPATH": f"{tmp_path / 'lacking'}:{TREE}"}
    fleet.start()
    for device in fleet.devices:
        device.feed(4)
    until(lambda: all("event=update_awaits_cohort" in each.log() for each in fleet.devices[:2]), "two updates wait")
    until(lambda: "event=task_refused task=digits" in lacking.log(), "the third one says what it lacks")
    assert "TenSEAL is not installed" in lacking.log()
    assert "pip install 'edgeflock[homomorphic]'" in lacking.log()
    for process in (fleet.coordinator, fleet.helpers[-1], fleet.devices[0]):
        process.kill()
    fleet.coordinator.start_serving()
    fleet.helpers[-1].start()
    fleet.devices[0].start()
    until(lambda: fleet.version() == 1, "the least devices are summed when the time is over")
    until(lambda: fleet.devices[1].status()["accepted_updates"] == 1, "it is told that its update counts")
    until(lambda: fleet.devices[0].status()["waiting_updates"] == 0, "so is the one that was killed")
    with fleet.coordinator.journal() as journal:
        assert versions_replayed(journal, "digits") == 1
        held = list(journal.updates("digits"))
    assert len(held) == 2
    assert {row.kind for row in held} == {MASKED_UPDATE.number}
    assert "event=worker_not_confined" not in fleet.devices[1].log(), "it encrypts before it is shut in"
    assert lacking.exit_status() is None


def test_device_whose_owner_trusts_other_helpers_does_not_train(fleet_of):
    fleet = fleet_of(3, colluding=2)
    stranger = fleet.devices[0]
    stranger.configuration.write_text(stranger.configuration.read_text().replace(fleet.helpers[0].mask_key, "ab" * 32))
    fleet.start()
    stranger.feed(4)
    until(lambda: "event=task_refused task=digits" in stranger.log(), "its owner's word counts")
    assert "not among trusted_mask_helpers" in stranger.log()
