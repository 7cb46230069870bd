"""The one-shot baseline: devices by themselves, averaged once by their samples."""

import numpy as np
import pytest

from benchmarks.heterogeneity.divisions import Device
from benchmarks.heterogeneity.one_shot import averaged_once
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.engine import Rates, plan_batches
from tests.support.digits_rounds import ENGINE, START, TASK, digits
from tests.support.personal_task import HEAD, moved, personal

DEVICES = [Device(digits(np.arange(count) % 2 + start), digits(np.arange(4)), 0) for count, start in ((90, 0), (30, 4))]
ROUNDS = 2


def test_models_count_by_their_samples():
    total = np.zeros(START.size)
    for number, device in enumerate(DEVICES):
        count = ROUNDS * steps_of_round(TASK.training, len(device.training))
        batches = plan_batches(len(device.training), count, TASK.training.batch_size, number)
        trained, _ = ENGINE.train(START, device.training, batches, Rates.planned(TASK.training))
        total += len(device.training) / 120 * trained
    found = averaged_once(ENGINE, START, TASK, DEVICES, "models", rounds=ROUNDS, seed=0)
    np.testing.assert_allclose(found, total, atol=1e-6)


@pytest.mark.parametrize(("what", "changed"), [("heads", set(HEAD)), ("models", {"1.weight", "1.bias", *HEAD})])
def test_heads_are_averaged_on_the_layers_that_all_begin_with(what, changed):
    task = personal(parameters=HEAD)
    assert moved(START, averaged_once(ENGINE, START, task, DEVICES, what, rounds=1, seed=0), task) == changed
