"""The size of the buffer follows the fleet: intake and version maker agree on it, restarts and replays keep it."""

import numpy as np
import pytest

from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.standing import read_standing
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.kinds import Outcome, Receipt
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

DEVICES = [SigningDevice(f"pi-{number}") for number in range(60)]


class Fleet:
    """A coordinator, and what each device has sent it so far."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._sent = 0
        for device in DEVICES:
            bench.handle(device, device.enrolment())

    def send(self, device: SigningDevice) -> Receipt:
        """One update of the newest version."""
        self._sent += 1
        self.bench.receipts()
        self.bench.handle(device, device.update(self._sent, base_version=self.version))
        self.bench.make_versions()
        (receipt,) = self.bench.receipts()
        return receipt

    @property
    def version(self) -> int:
        return self.bench.journal.newest_number(TASK)

    @property
    def buffer_size(self) -> int | None:
        return read_standing(self.bench.journal.engine).tasks[TASK].buffer_size

    def updates_of_versions(self) -> list[int]:
        return [each.updates for each in self.bench.journal.overview.version_summaries(TASK, 1000)][1:]


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    return Fleet(Bench(tmp_path / "fleet.db", write_bundle(tmp_path / "bundle", aggregation=AggregationPlan())))


@pytest.mark.parametrize("restarts", [False, True])
def test_versions_take_a_tenth_of_the_devices_and_a_replay_gives_their_bits(fleet, restarts) -> None:
    for _ in range(3):
        for device in DEVICES:
            assert fleet.send(device).outcome is Outcome.ACCEPTED
        if restarts:
            fleet.bench.restart()
    assert fleet.updates_of_versions() == [6] * 30
    assert fleet.buffer_size == 6
    for number, state in replayed(fleet.bench.journal, fleet.bench.description):
        stored = fleet.bench.journal.version(TASK, number).state(fleet.bench.description.parameters, {})
        assert np.array_equal(state.weights, stored.weights)


def test_three_devices_that_are_left_of_many_go_on_making_versions(fleet) -> None:
    for _ in range(3):
        for device in DEVICES:
            fleet.send(device)
    before = fleet.version
    for _ in range(4):
        for device in DEVICES[:3]:
            fleet.send(device)
    assert fleet.version >= before + 2


def test_rollback_leaves_the_size_as_it_is(fleet) -> None:
    for _ in range(2):
        for device in DEVICES:
            fleet.send(device)
    size = fleet.buffer_size
    VersionRegistry(fleet.bench.journal.engine).roll_back(TASK, 2)
    assert fleet.buffer_size == size == 6


def test_update_that_is_sent_once_its_version_is_full_is_not_stale(fleet) -> None:
    for device in DEVICES[:6]:
        receipt = fleet.send(device)
    assert (fleet.version, receipt.outcome) == (1, Outcome.ACCEPTED)
    fleet.send(DEVICES[6])
    assert [each.staleness for each in fleet.bench.journal.updates(TASK)] == [0] * 7


def test_device_that_sends_fast_makes_no_version_alone_while_others_are_there(fleet) -> None:
    for device in DEVICES * 2:
        fleet.send(device)
    for device in DEVICES[1:] * 2:
        for _ in range(5):
            fleet.send(DEVICES[0])
        fleet.send(device)
    senders: dict[int | None, set[str]] = {}
    for update in fleet.bench.journal.updates(TASK):
        senders.setdefault(update.aggregate, set()).add(update.device)
    assert all(len(each) > 1 for version, each in senders.items() if version is not None)
