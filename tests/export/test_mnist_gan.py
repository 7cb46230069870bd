"""The shipped generator and discriminator train through their cuts as the whole pair does."""

import numpy as np
import pytest

from edge_agent.training.engine import plan_batches
from tests.support.chained_blocks import ExportedTask, train_chained, train_whole
from workbench.export.recipe.recipe import read_recipe
from workbench.export.trials.random_samples import random_samples
from workbench.recipe_folder import find_recipe

STEPS, ROWS, SAMPLES, TOLERANCE = 20, 8, 40, 1e-5


@pytest.fixture(scope="module")
def pair() -> ExportedTask:
    return ExportedTask.of(read_recipe(find_recipe("mnist_gan")))


def check(pair: ExportedTask, names: list[str]) -> None:
    plan, samples = plan_batches(SAMPLES, STEPS, ROWS, seed=1), random_samples(pair.task).take(slice(0, SAMPLES))
    expected, losses = train_whole(pair, samples, plan)
    assert np.abs(expected - pair.weights).max() > 1e-3
    for name in names:
        trained, chained_losses = train_chained(pair, pair.task.split.cut(name), samples, plan)
        np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE, err_msg=name)
        np.testing.assert_allclose(chained_losses, losses, rtol=0, atol=TOLERANCE, err_msg=name)


def test_the_least_and_the_most_that_a_helper_runs_train_as_the_whole_pair(pair: ExportedTask):
    check(pair, ["g3-d3", "g3ht-d3ht"])


@pytest.mark.long
def test_all_sixteen_cuts_train_as_the_whole_pair(pair: ExportedTask):
    assert len(pair.task.split.cuts) == 16
    check(pair, [cut.name for cut in pair.task.split.cuts])
