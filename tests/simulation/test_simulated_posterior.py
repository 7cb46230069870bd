"""A fleet in virtual time whose model is a distribution over weights, through crashes, refusals and a checkpoint."""

import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from fleet_protocol.codec import gaussian_places, prior_of, read_distribution
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.posterior_plan import PosteriorPlan
from tests.support.digits_rounds import BUNDLE, FOLDER, digits
from tests.support.posterior_task import with_posterior
from tests.support.simulated_fleet import HOUR, fleet
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.show import asked_workload
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

DEVICES, UPDATES = 5, 20
PLAN = PosteriorPlan(damping=0.3)
TASK = with_posterior(BUNDLE.description, PLAN)


def simulation(*, crashes: float = 0.0, concurrent: int | None = None, task=TASK) -> Simulation:
    parts = [digits(np.arange(60) % 10, seed) for seed in range(DEVICES)]
    workload = trained_workload(FOLDER, task, parts, digits(np.arange(200) % 10, 100))
    options = Options(seed=1, seconds=100 * HOUR, updates=UPDATES, score_every=UPDATES, concurrent=concurrent)
    return Simulation(fleet(DEVICES, crashes_per_day=crashes), Bundle(task, BUNDLE.files), workload, options)


@pytest.mark.parametrize("crashes", [0.0, 24.0])
def test_a_fleet_learns_and_grows_more_certain(crashes: float) -> None:
    made = simulation(crashes=crashes)
    result = made.run()
    assert (result.summary.crashes > 0) is (crashes > 0)
    assert not result.summary.refused
    assert result.summary.score > 0.7 > result.summary.first_score
    deviation = read_distribution(made.version_to_use, TASK, PLAN)[1][gaussian_places(TASK, PLAN)]
    prior = prior_of(TASK, PLAN)
    assert (deviation <= prior).all()
    assert (deviation < 0.9 * prior).any()


def test_factors_go_on_from_a_checkpoint(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 50)
    paths = []

    def tick(_: float) -> None:
        paths.append(tmp_path / str(len(paths)))
        write_checkpoint(paths[-1], {}, whole)

    whole, resumed = (simulation() for _ in range(2))
    expected = whole.run(tick=tick)
    assert resume(paths[-1], {}, resumed)
    assert resumed.run().summary == expected.summary
    assert resumed.version_to_use == whole.version_to_use


def test_without_samples_there_is_nothing_to_draw_labels_from() -> None:
    with pytest.raises(ConfigurationError, match="add --data"):
        asked_workload(FOLDER, Bundle(TASK, BUNDLE.files), DEVICES, None, 1)
