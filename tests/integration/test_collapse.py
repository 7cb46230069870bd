"""Training that collapses goes back to its last good version with smaller steps, says so, and can be replayed."""

import logging

import numpy as np
import pytest

from broker_coordinator.aggregation.collapse import SMALLEST_STEP
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.commands.task_shown import VERSIONS_LOOKED_AT, task_shown
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.records import Evaluation
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice, packed_delta
from tests.support.replay import versions_replayed

LEARNING = (1.0, 0.8, 0.6, 0.5, 0.4, 0.4, 0.4, 0.4)
LOST = (5.0, 5.0, 5.0)
"""In versions. With three of four losses that large, the level is that."""


class Fleet:
    """A coordinator, and four devices of which the updates make a version each time."""

    def __init__(self, database, folder, strategy: str, **options) -> None:
        plan = AggregationPlan(buffer_size=4, strategy=strategy, server_momentum=0.3, averaged_versions=10)
        self.metrics = Metrics()
        self.bench = Bench(database, write_bundle(folder, aggregation=plan), metrics=self.metrics, **options)
        self._devices = [SigningDevice(f"pi-{number}") for number in range(4)]
        self._sent = 0
        for device in self._devices:
            self.bench.handle(device, device.enrolment())

    def learn(self, *losses: float, cry_wolf: bool = False) -> None:
        """A version for each loss, in which its devices have found it; one of them declares anything."""
        for loss in losses:
            self._sent += 1
            for device in self._devices:
                declared = 9e9 if cry_wolf and device is self._devices[0] else loss
                packed = packed_delta(self._sent)
                message = device.update(self._sent, base_version=self.newest, loss=declared, packed=packed)
                self.bench.handle(device, message)
            self.bench.make_versions()
            self.bench.make_versions()  # what is restored is read, as it is a moment later

    def flood(self, loss: float, versions: int) -> None:
        """One device makes versions of updates of its own alone."""
        evil = self._devices[-1]
        for _ in range(versions):
            for _ in range(4):
                self._sent += 1
                packed = packed_delta(self._sent)
                message = evil.update(self._sent, base_version=self.newest, loss=loss, packed=packed)
                self.bench.handle(evil, message)
            self.bench.make_versions()
            self.bench.make_versions()

    @property
    def newest(self) -> int:
        return self.bench.journal.newest_number(TASK)

    def step_of(self, number: int) -> float:
        return self.bench.journal.version(TASK, number).step

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"task": TASK})


@pytest.fixture
def fleet(database, tmp_path) -> Fleet:
    return Fleet(database, tmp_path / "bundle", "ca2fl")


def test_last_good_version_is_restored_with_half_the_step_and_said(fleet, caplog) -> None:
    fleet.learn(*LEARNING)
    assert fleet.metric("edgeflock_server_step") == 1.0
    with caplog.at_level(logging.ERROR):
        fleet.learn(*LOST)
    assert fleet.bench.journal.history(TASK).rollbacks == {12: 7}
    assert fleet.step_of(12) == 0.5
    (said,) = [each.message for each in caplog.records if "training_collapsed" in each.message]
    assert "task=tiny version=11 loss=5 lowest_loss=0.4 restored=7 restored_as=12 step=0.5" in said
    assert fleet.metric("edgeflock_training_collapses_total") == 1.0
    assert fleet.metric("edgeflock_server_step") == 0.5
    for last in (0, 3, 20):
        words, *_ = task_shown(fleet.bench.journal, TASK, last)["advice"]
        assert words.startswith(
            "training collapsed at version 11: version 12 goes back to 7, and the server's learning rate is 0.5 of"
        ), last


def test_collapse_is_shown_for_as_long_as_the_step_is_smaller_and_no_longer(fleet, tmp_path) -> None:
    fleet.learn(*LEARNING, *LOST, *LEARNING, *LEARNING, *LEARNING)
    assert fleet.newest > 12 + VERSIONS_LOOKED_AT
    (words,) = task_shown(fleet.bench.journal, TASK, 3)["advice"]
    assert "version 12 goes back to 7" in words
    fleet.learn(*LOST)
    (words,) = task_shown(fleet.bench.journal, TASK, 20)["advice"]
    assert "the server's learning rate is 0.25 of the task's" in words
    plan = AggregationPlan(buffer_size=4, strategy="ca2fl", averaged_versions=10)
    TaskRegistry(fleet.bench.journal.engine).publish(write_bundle(tmp_path / "corrected", aggregation=plan))
    assert fleet.step_of(fleet.newest) == 1
    assert task_shown(fleet.bench.journal, TASK, 50)["advice"] == []


@pytest.mark.parametrize("strategy", ["fedbuff", "ca2fl", "aced"])
@pytest.mark.parametrize("restarts", [False, True])
def test_versions_before_and_after_a_collapse_are_equal_to_their_replay(tmp_path, strategy, restarts) -> None:
    fleet = Fleet(tmp_path / "fleet.db", tmp_path / "bundle", strategy)
    for losses in (LEARNING, LOST, LEARNING, LOST):
        if restarts:
            fleet.bench.restart()
        fleet.learn(*losses)
    assert len(fleet.bench.journal.history(TASK).rollbacks) == 2
    assert fleet.step_of(fleet.newest) == 0.25
    assert versions_replayed(fleet.bench.journal, TASK) == fleet.newest
    assert versions_replayed(fleet.bench.journal, TASK, start=5) == fleet.newest - 5


def test_version_after_a_collapse_moves_half_as_far(tmp_path) -> None:
    moved = {}
    for losses in (LOST, (0.4, 0.4, 0.4)):
        fleet = Fleet(tmp_path / f"{losses}.db", tmp_path / f"bundle {losses}", "fedbuff")
        fleet.learn(*LEARNING, *losses)
        before = fleet.bench.journal.newest_version(TASK).state(fleet.bench.description.parameters, {})
        fleet.learn(0.4)
        after = fleet.bench.journal.newest_version(TASK).state(fleet.bench.description.parameters, {})
        moved[losses] = after.weights - before.weights - 0.3 * before.step * before.moments[0]
    np.testing.assert_allclose(moved[LOST], 0.5 * moved[0.4, 0.4, 0.4], atol=1e-6)


def test_steps_do_not_become_so_small_that_nothing_moves(fleet) -> None:
    for _ in range(8):
        fleet.learn(*LEARNING, *LOST)
    assert fleet.step_of(fleet.newest) == SMALLEST_STEP


def test_where_the_good_version_is_dropped_versions_go_on_and_that_is_said(database, tmp_path, caplog) -> None:
    fleet = Fleet(database, tmp_path / "bundle", "fedbuff", retention=Retention(versions=1, every=0))
    fleet.learn(*LEARNING, *(0.4,) * 20, *(0.6,) * 22)
    with caplog.at_level(logging.ERROR):
        fleet.learn(*LOST)
    assert fleet.bench.journal.history(TASK).rollbacks == {}
    assert fleet.newest == len(LEARNING) + 20 + 22 + len(LOST)
    assert any("collapse_not_met" in each.message for each in caplog.records)


@pytest.mark.parametrize("losses", [(0.9, 0.8, 0.9, 0.8, 0.7), (5.0, 5.0, 0.4, 0.4, 5.0)])
def test_nothing_is_restored_where_losses_rise_a_little_or_only_now_and_then(fleet, losses) -> None:
    fleet.learn(*LEARNING, *losses)
    assert fleet.bench.journal.history(TASK).rollbacks == {}


def test_where_the_restored_version_is_found_wanting_too_training_goes_on_from_it(fleet) -> None:
    fleet.learn(*LEARNING, *LOST)
    fleet.learn(*LOST, *LOST, *LOST, *LOST)
    assert fleet.bench.journal.history(TASK).rollbacks == {12: 7}


def test_collapse_on_held_out_samples_counts_whatever_devices_declare(fleet) -> None:
    registry = VersionRegistry(fleet.bench.journal.engine)
    for loss in (*LEARNING, *LOST):
        fleet.learn(0.5)
        registry.add_evaluation(TASK, Evaluation(fleet.newest, 100, loss, None))
    assert fleet.bench.journal.history(TASK).rollbacks == {}
    fleet.learn(0.5)
    assert fleet.bench.journal.history(TASK).rollbacks == {13: 7}
    fleet.learn(0.5, 0.5)
    assert fleet.bench.journal.history(TASK).rollbacks == {13: 7}


def test_one_device_that_declares_any_loss_brings_nothing_about(fleet) -> None:
    fleet.learn(*LEARNING, *LEARNING, cry_wolf=True)
    assert fleet.bench.journal.history(TASK).rollbacks == {}


def test_one_device_that_makes_versions_alone_brings_nothing_about(fleet) -> None:
    fleet.learn(*LEARNING)
    fleet.flood(1e12, versions=3)
    fleet.bench.restart()
    fleet.flood(1e12, versions=1)
    assert fleet.newest == len(LEARNING) + 4
    assert fleet.bench.journal.history(TASK).rollbacks == {}
    assert fleet.step_of(fleet.newest) == 1.0
