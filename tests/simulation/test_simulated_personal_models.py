"""A fleet in virtual time whose devices have a model of their own: kept through sleep and crashes, and never sent."""

from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.codec import own_places, read_weights
from tests.support.digits_rounds import BUNDLE, FOLDER, digits
from tests.support.personal_task import HEAD, personal
from tests.support.simulated_fleet import HOUR, fleet
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

DEVICES = 8
UPDATES = 40
TASK = BUNDLE.description
METHODS = [
    {"parameters": HEAD},
    {"parameters": HEAD, "first_steps": 20},
    {"method": "ditto"},
    {"method": "reptile"},
    {"method": "maml"},
]


def renamed(number: int, seed: int) -> Samples:
    """What a device sees: every second one calls each class like the next one."""
    samples = digits(np.arange(150) % 10, seed)
    return Samples(samples.inputs, (samples.labels + number % 2) % 10, len(samples))


def simulation(folder: Path = FOLDER, *, crashes: float = 0.0, concurrent: int | None = 4, **settings) -> Simulation:
    task = personal(TASK, **settings) if settings else TASK
    workload = trained_workload(folder, task, [renamed(each, each) for each in range(DEVICES)], renamed(0, 100))
    options = Options(
        seed=1, seconds=100 * HOUR, updates=UPDATES, score_every=UPDATES, concurrent=concurrent, plain=True
    )
    return Simulation(fleet(DEVICES, crashes_per_day=crashes), Bundle(task, BUNDLE.files), workload, options)


def right(made: Simulation) -> float:
    """The share of right answers of devices' models on samples of their own kind."""
    workload = trained_workload(FOLDER, TASK, [renamed(0, 0)] * DEVICES, renamed(0, 50))
    other = trained_workload(FOLDER, TASK, [renamed(0, 0)] * DEVICES, renamed(1, 50))
    models = [agent.model(made.model) for agent in made.agents]
    return float(np.mean([(other if number % 2 else workload).score(each) for number, each in enumerate(models)]))


@pytest.mark.parametrize(
    "settings", METHODS, ids=lambda settings: settings.get("method", str(settings.get("first_steps")))
)
def test_devices_that_contradict_each_other_are_each_right_by_themselves(settings):
    made = simulation(**settings)
    made.run()
    shared = simulation()
    shared.run()
    assert right(made) > right(shared) + 0.1


@pytest.mark.parametrize("crashes", [0.0, 24.0])
def test_fleet_of_sleepers_keeps_its_own_parameters_and_shares_none(crashes):
    made = simulation(crashes=crashes, concurrent=None, parameters=HEAD)
    result = made.run()
    assert result.summary.updates == UPDATES
    assert (result.summary.crashes > 0) is (crashes > 0)
    assert not result.summary.refused
    first = BUNDLE.grid().rounded(read_weights(BUNDLE.weights, TASK.parameters), TASK.shapes)
    own = own_places(personal(TASK, parameters=HEAD))
    assert (made.model[own] == first[own]).all()
    assert (made.model[~own] != first[~own]).any()
    assert sum(agent.keeps_something for agent in made.agents) == DEVICES
    assert result.summary.score > result.summary.first_score
    assert result.summary.measure == "accuracy of devices' models, mean"


def test_the_same_seed_gives_the_same_models():
    one, other = simulation(method="ditto"), simulation(method="ditto")
    assert one.run().summary == other.run().summary
    pairs = zip(one.agents, other.agents, strict=True)
    assert all((mine.model(one.model) == its.model(other.model)).all() for mine, its in pairs)


def test_what_devices_keep_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 50)
    paths = []

    def tick(_: float) -> None:
        paths.append(tmp_path / str(len(paths)))
        write_checkpoint(paths[-1], {}, whole)

    whole, resumed = (simulation(concurrent=None, parameters=HEAD) for _ in range(2))
    expected = whole.run(tick=tick)
    assert resume(paths[-1], {}, resumed)
    assert resumed.run().summary == expected.summary
    pairs = zip(whole.agents, resumed.agents, strict=True)
    assert all((mine.model(whole.model) == its.model(resumed.model)).all() for mine, its in pairs)
