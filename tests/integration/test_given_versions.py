"""Versions that no updates made stand among the others: for devices, replays, rollbacks, the mean and operators."""

import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.aggregation.version import version_of
from broker_coordinator.commands.export import model_of
from broker_coordinator.consumers.prompts import read_tally
from broker_coordinator.serving.forgetting import Asked, forget_device
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.given_versions import give_version
from broker_coordinator.storage.journal import TasksChangedError
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import PROMPTS, Outcome, Prompts
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.update_plan import UpdatePlan
from prompt_synthesis.publishing import publish_trained
from prompt_synthesis.replay import replay
from prompt_synthesis.told_prompts import told_prompts
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.prompts import bundle_with_prompts, message
from tests.support.replay import versions_replayed

DEVICE = SigningDevice("kitchen-pi")
OTHER = SigningDevice("attic-pi")
TOLD = Prompts("class", bytes([4, 0, 4, 0]), "voice=slt")
GIVEN = np.linspace(0.5, -0.5, 36, dtype=np.float32)
COMMON = {"buffer_size": 1, "max_staleness": 5, "max_delta_norm": 10.0}
PLANS = [
    AggregationPlan(server_momentum=0.6, **COMMON),
    AggregationPlan(strategy="ca2fl", server_momentum=0.3, **COMMON),
    AggregationPlan(strategy="base_mean", **COMMON),
    AggregationPlan(strategy="ef21", **COMMON),
]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "one.db", bundle_with_prompts(tmp_path / "bundle"), replace(OPEN, keys=(KEY,)))
    for device in (DEVICE, OTHER):
        bench.handle(device, device.enrolment())
    bench.said()
    return bench


def give(bench: Bench, weights: np.ndarray = GIVEN) -> int:
    bundle = TaskRegistry(bench.journal.engine).bundle(TASK)
    return publish_trained(bench.journal, bundle, lambda _: weights, "trained on 9 samples").number


def test_given_version_is_what_devices_hear_of_next_with_words_on_what_it_is(bench):
    bench.handle(DEVICE, DEVICE.update(1))
    bench.make_versions()
    bench.said()
    assert give(bench) == 2
    bench.coordinator.reload_if_changed()
    (manifest,) = bench.manifests()
    given = bench.journal.newest_version(TASK)
    assert (manifest.version, manifest.weights) == (2, given.weights_hash)
    published = read_weights(given.weights, bench.description.parameters)
    np.testing.assert_allclose(published, GIVEN, atol=0.07)  # the task rounds to a grid
    (shown,) = bench.journal.overview.version_summaries(TASK, 1)
    assert (shown.given, shown.updates) == ("trained on 9 samples", 0)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.strategy)
def test_updates_from_before_and_after_it_count_and_every_version_is_computed_again(tmp_path, plan):
    update = UpdatePlan(0.5, feedback="ef21" if plan.strategy == "ef21" else "residual")
    bundle = write_bundle(tmp_path / "bundle", aggregation=plan, update=update, prompts=PromptPlan())
    bench = Bench(tmp_path / "two.db", bundle, replace(OPEN, keys=(KEY,)))
    bench.handle(DEVICE, DEVICE.enrolment())
    sequence = 0
    for number in (0, 2, 4):
        while bench.journal.newest_number(TASK) < number + 1:
            sequence += 1
            bench.handle(DEVICE, DEVICE.update(sequence, base_version=number))
            bench.now += 100.0
            bench.make_versions()
        assert give(bench, GIVEN * (number + 1)) == number + 2
        bench.coordinator.reload_if_changed()
    assert versions_replayed(bench.journal, TASK) == 6
    bench.restart()
    assert versions_replayed(bench.journal, TASK, start=3) == 3


def test_rollback_goes_back_before_it(bench):
    give(bench)
    registry = VersionRegistry(bench.journal.engine)
    assert registry.roll_back(TASK, 0).number == 2
    assert versions_replayed(bench.journal, TASK) == 2


def test_mean_for_use_is_of_versions_from_it_on(bench):
    bench.handle(DEVICE, DEVICE.update(1))
    bench.make_versions()
    give(bench)
    newest = bench.journal.newest_version(TASK)
    alone = read_weights(newest.weights, bench.description.parameters)
    mean = read_weights(model_of(bench.journal, TASK, None, single=False), bench.description.parameters)
    assert mean.tobytes() == alone.tobytes()


def test_retention_keeps_what_nothing_can_compute_again(tmp_path):
    bundle = bundle_with_prompts(tmp_path / "bundle")
    bench = Bench(tmp_path / "one.db", bundle, OPEN, retention=Retention(versions=1, every=0))
    bench.handle(DEVICE, DEVICE.enrolment())
    give(bench)
    for sequence in range(1, 11):
        bench.handle(DEVICE, DEVICE.update(sequence, base_version=sequence))
        bench.make_versions()
    kept = bench.journal.kept_numbers(TASK)
    assert (1 in kept, 2 in kept) == (True, False)
    assert versions_replayed(bench.journal, TASK) == len(kept) - 1


def test_version_that_the_fleet_makes_meanwhile_is_trained_from_instead(bench):
    bundle = TaskRegistry(bench.journal.engine).bundle(TASK)
    begun_with = []

    def train(weights):
        begun_with.append(weights)
        if len(begun_with) == 1:
            bench.handle(DEVICE, DEVICE.update(1))
            bench.make_versions()
        return GIVEN

    assert publish_trained(bench.journal, bundle, train, "").number == 2
    assert begun_with[0].tobytes() != begun_with[1].tobytes()


def test_fleet_that_is_faster_than_training_is_named_as_the_reason(bench):
    bundle = TaskRegistry(bench.journal.engine).bundle(TASK)
    sequences = iter(range(1, 100))

    def train(_):
        number = next(sequences)
        bench.handle(DEVICE, DEVICE.update(number, base_version=number - 1))
        bench.make_versions()
        return GIVEN

    with pytest.raises(ConfigurationError, match="pause the task"):
        publish_trained(bench.journal, bundle, train, "")


def test_version_for_another_bundle_is_not_published(bench, tmp_path):
    newest = bench.journal.newest_version(TASK)
    state = replace(newest.state(bench.description.parameters, {}), version=1)
    version = replace(version_of(bench.description, state, None), given="")
    with pytest.raises(ConfigurationError, match="published with another bundle meanwhile"):
        give_version(bench.journal.engine, version, "0f" * 32)
    served = TaskRegistry(bench.journal.engine).task(TASK).bundle
    with pytest.raises(TasksChangedError):
        give_version(bench.journal.engine, replace(version, number=5), served)


def test_newest_prompts_of_every_device_are_read_through_restarts_and_encryption(bench):
    later = replace_style(TOLD, "voice=kal16")
    bench.handle(DEVICE, message(DEVICE, TOLD, 1), message(DEVICE, later, 2))
    bench.make_versions()
    bench.restart()
    bench.handle(OTHER, message(OTHER, TOLD, 1))
    bench.make_versions()
    assert told_prompts(bench.journal, bench.description, (KEY,)) == {
        "kitchen-pi": (later, None),
        "attic-pi": (TOLD, None),
    }
    aggregate = bench.journal.newest_aggregate(TASK, PROMPTS.number)
    assert read_tally(aggregate.state).messages == 3
    assert bench.journal.newest_number(TASK) == 0


def replace_style(prompts: Prompts, style: str) -> Prompts:
    return msgspec.structs.replace(prompts, style=style)


def test_prompts_of_a_device_that_is_forgotten_are_used_no_more_until_it_tells_again(bench):
    bench.handle(DEVICE, message(DEVICE, TOLD, 1))
    bench.make_versions()
    DeviceRegistry(bench.journal.engine).forget("kitchen-pi")
    assert told_prompts(bench.journal, bench.description, (KEY,)) == {}
    bench.handle(DEVICE, message(DEVICE, TOLD, 2))
    bench.make_versions()
    assert told_prompts(bench.journal, bench.description, (KEY,)) == {"kitchen-pi": (TOLD, None)}


def test_what_a_given_version_holds_of_a_forgotten_device_is_said(bench):
    bench.handle(DEVICE, DEVICE.update(1))
    bench.make_versions()
    give(bench)
    bench.handle(OTHER, OTHER.update(1, base_version=2))
    bench.make_versions()
    before = bench.journal.newest_version(TASK).weights
    DeviceRegistry(bench.journal.engine).forget("kitchen-pi")
    (forgotten,) = forget_device(bench.journal, Asked("kitchen-pi"), (KEY,))
    assert "what kitchen-pi sent before version 2, which was trained elsewhere" in forgotten.remains
    assert bench.journal.newest_version(TASK).weights == before
    assert versions_replayed(bench.journal, TASK) == 4


def test_prompts_for_another_bundle_are_used_no_more(bench, tmp_path):
    bench.handle(DEVICE, message(DEVICE, TOLD, 1))
    bench.make_versions()
    other = bundle_with_prompts(tmp_path / "other", PromptPlan(names=list("abcd")))
    TaskRegistry(bench.journal.engine).publish(other)
    assert told_prompts(bench.journal, other.description, (KEY,)) == {}


@pytest.mark.parametrize("style", ["\x1b[2J", "x" * 10_000])
def test_hostile_prompts_are_refused_with_a_reason_and_counted(bench, style):
    bench.handle(DEVICE, message(DEVICE, replace_style(TOLD, style), 1))
    (receipt,) = bench.receipts()
    assert receipt.outcome is Outcome.REJECTED
    assert receipt.reason in ("malformed", "out_of_bounds")
    assert sum(bench.journal.overview.rejections_of("kitchen-pi").values()) == 1
    bench.handle(OTHER, message(OTHER, TOLD, 1))
    assert [each.outcome for each in bench.receipts()] == [Outcome.ACCEPTED]


def test_replay_publishes_behind_each_version_of_the_fleet_and_ends_when_asked(bench):
    bundle = TaskRegistry(bench.journal.engine).bundle(TASK)
    sequences = iter(range(1, 100))
    stopping = threading.Event()

    def fleet_makes_one() -> None:
        number = next(sequences)
        bench.handle(DEVICE, DEVICE.update(number, base_version=bench.journal.newest_number(TASK)))
        bench.make_versions()

    def publish():
        made = publish_trained(bench.journal, bundle, lambda weights: weights / 2, "replayed")
        fleet_makes_one()
        return made

    fleet_makes_one()
    assert replay(bench.journal, TASK, 0, 3, publish=publish, stopping=stopping) == [2, 4, 6]
    stopping.set()
    assert replay(bench.journal, TASK, 99, 3, publish=publish, stopping=stopping) == []
    assert versions_replayed(bench.journal, TASK) == 7
