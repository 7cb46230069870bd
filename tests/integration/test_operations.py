"""Operators' commands on tasks: a running coordinator notices, nothing is lost, and replays still fit."""

import pytest

from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.storage.records import Evaluation
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed

BUFFER = 2
COMMON = {"buffer_size": BUFFER, "max_staleness": 3, "averaged_versions": 1}
PLANS = [
    AggregationPlan(server_momentum=0.6, server_learning_rate=0.9, **COMMON),
    AggregationPlan(strategy="ca2fl", server_momentum=0.3, **COMMON),
    AggregationPlan(strategy="base_mean", **COMMON),
    AggregationPlan(strategy="ef21", server_momentum=0.3, **COMMON),
]
NAMES = ("kitchen-pi", "garden-pi", "attic-pi")


class Fleet:
    """Three devices on a bench, which send one update each in turn."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.devices = bench, [SigningDevice(name) for name in NAMES]
        self._sent = 0
        for device in self.devices:
            bench.handle(device, device.enrolment())
        bench.said()

    def make_versions(self, count: int) -> None:
        """Send what makes so many versions."""
        for _ in range(count * BUFFER):
            device, sequence = self.devices[self._sent % len(NAMES)], self._sent // len(NAMES) + 1
            base = self.bench.journal.newest_number(TASK)
            self.bench.handle(device, device.update(sequence, base_version=base, samples=1 + self._sent % 5))
            self.bench.make_versions()
            self._sent += 1


@pytest.fixture
def bench(database, bundle) -> Bench:
    return Bench(database, bundle)


def test_published_bundle_is_served_by_a_running_coordinator(bench, tmp_path) -> None:
    other = write_bundle(tmp_path / "other", task="roses")
    registry = TaskRegistry(bench.journal.engine)
    bench.said()
    registry.publish(other)
    assert registry.publish(other).bundle == other.hash, "a second time changes nothing"
    bench.coordinator.reload_if_changed()
    assert other.hash in {manifest.bundle for manifest in bench.manifests()}
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), device.update(1, task="roses"))
    assert [row.task for row in bench.journal.updates()] == ["roses"]
    bench.handle(device, device.blob_request(other.hash, [], 1))
    assert any(other.hash in said.topic for said in bench.said())


def test_served_bundle_outlives_its_folder(database, bundle) -> None:
    Bench(database, bundle).journal.close()
    again = Bench(database, None)
    assert again.coordinator.tasks() == [TASK]
    assert TaskRegistry(again.journal.engine).bundle(TASK) == bundle


def test_paused_task_takes_nothing_and_takes_the_same_bytes_once_resumed(bench) -> None:
    device, registry = SigningDevice("kitchen-pi"), TaskRegistry(bench.journal.engine)
    bench.handle(device, device.enrolment(), device.update(1))
    bench.said()
    registry.set_paused(TASK, paused=True)
    late = device.update(2)
    bench.handle(device, device.update(1), late)
    known, refused = bench.receipts()
    assert known.outcome is Outcome.ACCEPTED, "what is journalled stays receipted"
    assert (refused.outcome, refused.reason) == (Outcome.REJECTED, Reason.TASK_PAUSED.value)
    bench.restart()
    bench.handle(device, late)
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.TASK_PAUSED.value]
    registry.set_paused(TASK, paused=False)
    bench.handle(device, late)
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    assert [row.sequence for row in bench.journal.updates()] == [1, 2]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.strategy)
def test_rollback_makes_a_new_version_that_later_ones_grow_out_of(database, tmp_path, plan) -> None:
    update = UpdatePlan(0.5, feedback="ef21" if plan.strategy == "ef21" else "residual")
    bench = Bench(database, write_bundle(tmp_path / "bundle", aggregation=plan, update=update))
    fleet, registry = Fleet(bench), VersionRegistry(bench.journal.engine)
    fleet.make_versions(5)
    restored = registry.roll_back(TASK, 2)
    assert (restored.number, restored.restored) == (6, 2)
    bench.said()
    bench.coordinator.reload_if_changed()
    (manifest,) = bench.manifests()
    second = bench.journal.version(TASK, 2)
    assert (manifest.version, manifest.weights) == (6, second.weights_hash)
    assert (restored.weights, restored.moments) == (second.weights, second.moments)
    fleet.make_versions(2)
    bench.restart()
    registry.roll_back(TASK, 6)
    fleet.make_versions(2)
    assert bench.journal.history(TASK).rollbacks == {6: 2, 9: 6}
    assert bench.journal.newest_number(TASK) == 11
    assert versions_replayed(bench.journal, TASK) == 11
    assert versions_replayed(bench.journal, TASK, start=4) == 7


def test_rollback_that_comes_between_wins_and_waiting_updates_go_into_the_version_after_it(bench) -> None:
    device, registry = SigningDevice("kitchen-pi"), VersionRegistry(bench.journal.engine)
    bench.handle(device, device.enrolment(), *(device.update(sequence) for sequence in (1, 2, 3)))
    bench.make_versions()
    bench.handle(device, *(device.update(sequence) for sequence in (4, 5, 6)))
    registry.roll_back(TASK, 0)
    bench.make_versions()
    bench.make_versions()
    assert [row.aggregate for row in bench.journal.updates()] == [1, 1, 1, 3, 3, 3]
    assert versions_replayed(bench.journal, TASK) == 3


def test_rollback_to_what_is_not_there_is_refused(bench) -> None:
    registry = VersionRegistry(bench.journal.engine)
    with pytest.raises(ConfigurationError, match="is the newest already"):
        registry.roll_back(TASK, 0)
    with pytest.raises(ConfigurationError, match="not in the journal"):
        registry.roll_back(TASK, 7)
    with pytest.raises(ConfigurationError, match=f"no task 'roses'; it serves {TASK}"):
        registry.roll_back("roses", 0)


def test_old_versions_and_envelopes_are_forgotten_as_the_rule_says(database, tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", aggregation=PLANS[0])
    bench = Bench(database, bundle, retention=Retention(versions=1, every=5, envelopes=3))
    fleet, registry = Fleet(bench), VersionRegistry(bench.journal.engine)
    fleet.make_versions(3)
    registry.roll_back(TASK, 1)
    fleet.make_versions(4)
    bench.restart()
    fleet.make_versions(4)
    # 0 begins, 4 is a rollback's, 5 and 10 are fifths, 9 to 12 may still be built on: max_staleness is 3.
    assert [version.number for version in bench.journal.versions(TASK)] == [0, 4, 5, 9, 10, 11, 12]
    kept = {row.aggregate for row in bench.journal.updates(TASK) if row.envelope is not None}
    assert kept == {10, 11, 12}
    assert len(list(bench.journal.updates(TASK))) == 11 * BUFFER, "the rows stay: no update is taken twice"
    assert versions_replayed(bench.journal, TASK, start=9) == 3
    with pytest.raises(ConfigurationError, match=r"begin with version 9: --from 9; \[retention\]"):
        versions_replayed(bench.journal, TASK, start=5)
    with pytest.raises(ConfigurationError, match="weights are dropped"):
        versions_replayed(bench.journal, TASK, start=6)
    with pytest.raises(ConfigurationError, match="weights are dropped"):
        registry.roll_back(TASK, 6)


def test_by_default_every_update_is_kept(database, tmp_path) -> None:
    bench = Bench(database, write_bundle(tmp_path / "bundle", aggregation=PLANS[1]), retention=Retention(1, 0))
    Fleet(bench).make_versions(9)
    assert all(row.envelope is not None for row in bench.journal.updates(TASK))
    assert [version.number for version in bench.journal.versions(TASK)] == [0, 6, 7, 8, 9]
    assert versions_replayed(bench.journal, TASK) == 4


def test_versions_tell_their_updates_losses_and_evaluations(bench) -> None:
    device, registry = SigningDevice("kitchen-pi"), VersionRegistry(bench.journal.engine)
    losses = {1: 0.25, 2: 0.5, 3: 0.75}
    bench.handle(device, device.enrolment(), *(device.update(number, loss=loss) for number, loss in losses.items()))
    bench.make_versions()
    for accuracy in (0.5, 0.75):
        registry.add_evaluation(TASK, Evaluation(1, 40, 1.5, accuracy))
    zero, one = bench.journal.overview.version_summaries(TASK, 5)
    assert (zero.updates, zero.mean_loss, zero.evaluation) == (0, None, None)
    assert (one.updates, one.mean_loss, one.mean_staleness) == (3, 0.5, 0.0)
    assert one.evaluation == Evaluation(1, 40, 1.5, 0.75), "a second evaluation takes the first one's place"
