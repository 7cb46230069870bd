"""A simulated fleet whose task awaits its scale: it gets one, and learns from values in their units."""

import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.profiles import read_profile
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.codec import read_weights
from tests.support.tables import export_table_bundle
from workbench.data.scale import scaled_by
from workbench.inspection.trial_round import why_unsteady
from workbench.simulation.fleet_files import draw_fleet
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.workload import trained_workload

DEVICES, SHARE = 6, 40
SECONDS = 4 * 24 * 3600.0


def samples(count: int, seed: int, *, factor: float = 1.0) -> Samples:
    """Readings in three unlike units, a tenth of the last one missing, and what follows from them."""
    generator = np.random.default_rng(seed)
    unit = generator.normal(size=(count, 3)).astype(np.float32)
    targets = 1000 + 300 * (unit[:, :1] - unit[:, 1:2])
    inputs = unit * [2000.0, 4.0, 0.1] + [1e5, 20.0, 0.5]
    inputs[generator.random(count) < 0.1, 2] = np.nan
    return Samples((inputs * factor).astype(np.float32), targets.astype(np.float32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    export_table_bundle(folder)
    return folder / "bundle"


def simulated(bundle, first: Samples | None = None) -> tuple[Simulation, Result]:
    """A fleet whose first device has the samples `first`, or such as the others have."""
    parts = [first or samples(SHARE, 0), *(samples(SHARE, seed) for seed in range(1, DEVICES))]
    loaded = load_bundle(bundle)
    workload = trained_workload(bundle, loaded.description, parts, samples(200, 99))
    fleet = draw_fleet([read_profile("pi-4")], DEVICES, seed=1)
    simulation = Simulation(fleet, loaded, workload, Options(seed=1, seconds=SECONDS))
    return simulation, simulation.run()


def test_fleet_that_knows_nothing_of_units_learns_with_its_own_scale(bundle):
    _, result = simulated(bundle)
    assert result.summary.refused == {}
    assert not result.summary.rounds_diverged
    assert result.summary.bytes_up["statistics"] < 1000 * DEVICES
    assert max(point.score for point in result.history) > 0.9


def test_device_whose_units_differ_by_a_thousand_costs_the_others_little(bundle):
    _, result = simulated(bundle, samples(SHARE, 0, factor=1000.0))
    assert max(point.score for point in result.history) > 0.9
    words = result.summary.rounds_diverged.words
    assert words.startswith("input 0 has the mean 9.968e+07 on this device, 9.961e+04 in the fleet")
    assert "its unit is another; nothing is trained" in words


def all_alike(first: Samples) -> Samples:
    return Samples(first.inputs, np.full_like(first.labels, 1000.0))


def one_absurd_target(first: Samples) -> Samples:
    labels = first.labels.copy()
    labels[3] = 1e9
    return Samples(first.inputs, labels)


def constant_readings(first: Samples) -> Samples:
    return Samples(np.full_like(first.inputs, 20.0), first.labels)


@pytest.mark.parametrize("spoilt", [all_alike, one_absurd_target, constant_readings])
def test_device_with_useless_samples_costs_the_others_little(bundle, spoilt):
    _, result = simulated(bundle, spoilt(samples(SHARE, 0)))
    assert max(point.score for point in result.history) > 0.9
    assert result.history[-1].score > 0.85
    assert result.summary.set_aside == 0
    assert not result.summary.stopped


def test_same_fleet_gives_the_same_history(bundle):
    assert simulated(bundle)[1] == simulated(bundle)[1]


def test_trial_round_of_a_task_that_awaits_its_scale_has_that_of_its_samples(bundle):
    loaded = load_bundle(bundle)
    tried = samples(64, 5)
    task = scaled_by(tried, loaded.description)
    assert not task.scaling.is_awaited
    assert scaled_by(tried, task) is task
    weights = read_weights(loaded.weights, task.parameters)
    assert why_unsteady(OnnxStepEngine.of_task(task, loaded.files), weights, tried, task) is None
