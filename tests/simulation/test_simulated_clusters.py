"""Fleets in virtual time whose devices contradict each other: clusters are found, by the coordinator or by devices."""

from collections import Counter

import msgspec
import numpy as np
import pytest
from rich.console import Console

from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.cluster_plan import ClusterPlan
from tests.support.digits_rounds import BUNDLE, FOLDER, digits
from tests.support.simulated_fleet import HOUR, fleet
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.summary_table import print_summary
from workbench.simulation.workload import trained_workload

DEVICES = 10
UPDATES = 120
KINDS = 2


def renamed(number: int, seed: int) -> Samples:
    """What a device sees: every second one calls each class like the next one."""
    samples = digits(np.arange(60) % 10, seed)
    return Samples(samples.inputs, (samples.labels + number % KINDS) % 10, len(samples))


def simulation(found_by: str, *, kinds: int = KINDS, concurrent: int | None = 5, updates: int = UPDATES) -> Simulation:
    task = msgspec.structs.replace(BUNDLE.description, clusters=ClusterPlan(2, found_by=found_by))
    parts = [renamed(number % kinds, number) for number in range(DEVICES)]
    workload = trained_workload(FOLDER, task, parts, renamed(0, 100))
    options = Options(
        seed=1, seconds=1000 * HOUR, updates=updates, score_every=updates, concurrent=concurrent, plain=True
    )
    return Simulation(fleet(DEVICES), Bundle(task, BUNDLE.files), workload, options)


@pytest.mark.parametrize("found_by", ["directions", "devices"])
def test_devices_that_contradict_each_other_are_told_apart_and_each_is_right(found_by):
    made = simulation(found_by)
    summary = made.run().summary
    kinds = Counter((agent.cluster, number % KINDS) for number, agent in enumerate(made.agents))
    assert sorted(kinds.values()) == [DEVICES // 2] * 2
    assert {cluster for cluster, _ in kinds} == {1, 2}
    assert summary.devices_in_clusters == {1: DEVICES // 2, 2: DEVICES // 2}
    assert summary.measure == "accuracy of devices' models, mean"
    scores = [trained_workload(FOLDER, BUNDLE.description, [], renamed(kind, 50)).score for kind in range(KINDS)]
    own = [scores[number % KINDS](made.model_of(agent)) for number, agent in enumerate(made.agents)]
    assert min(own) > 0.8, "one model for both is right half of the time"


def test_devices_of_one_kind_stay_in_no_cluster():
    made = simulation("directions", kinds=1)
    assert made.run().summary.devices_in_clusters == {0: DEVICES}


@pytest.mark.parametrize("found_by", ["directions", "devices"])
def test_what_is_known_of_clusters_goes_on_from_a_checkpoint(found_by, tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 50)
    paths = []

    def tick(_: float) -> None:
        paths.append(tmp_path / str(len(paths)))
        write_checkpoint(paths[-1], {}, whole)

    whole, resumed = (simulation(found_by, concurrent=None, updates=60) for _ in range(2))
    expected = whole.run(tick=tick)
    assert resume(paths[len(paths) // 2], {}, resumed)
    assert resumed.run().summary == expected.summary
    assert len(expected.summary.devices_in_clusters) > 1
    assert [agent.cluster for agent in resumed.agents] == [agent.cluster for agent in whole.agents]


@pytest.mark.parametrize("found_by", ["directions", "devices"])
def test_score_is_of_devices_in_clusters_whether_they_sleep_or_not(found_by):
    made = simulation(found_by, concurrent=None, updates=60)
    summary = made.run().summary
    score = trained_workload(FOLDER, BUNDLE.description, [], renamed(0, 100)).score
    assert len(made.agents.awake) < len([agent for agent in made.agents if agent.cluster])
    scores = [score(made.model_of(agent)) for agent in made.agents if agent.cluster]
    assert summary.score == pytest.approx(np.mean(scores))


def test_how_many_devices_are_in_which_cluster_is_shown(capsys):

    summary = simulation("devices", updates=20).run().summary
    print_summary(msgspec.structs.replace(summary, devices_in_clusters={0: 3, 2: 7}), Console(width=200), 1.0)
    assert "none: 3, 2: 7" in capsys.readouterr().out
