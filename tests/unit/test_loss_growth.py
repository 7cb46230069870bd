"""A trial round is unsteady where the loss more than doubles in it, whatever its size."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from fleet_protocol.codec import read_weights
from fleet_protocol.posterior_plan import PosteriorPlan
from workbench.inspection.trial_round import why_unsteady

BUNDLE = load_bundle(Path(__file__).parents[2] / "models/digits/bundle")
SAMPLES = Samples(np.zeros((32, 64), np.float32), np.arange(32) % 10)


class Overshooting:
    """Changes nothing, and says that the loss goes from `first` to `last`."""

    def __init__(self, first: float, last: float) -> None:
        self._ends = first, last

    def train(self, weights, samples, plan, rates, on_progress):
        losses = np.repeat(np.array(self._ends, np.float32), len(plan.rows) // 2)
        on_progress(len(plan.rows), losses)
        return weights + np.float32(1e-3), losses


@pytest.mark.parametrize(
    ("first", "last", "unsteady"),
    [(2.3, 0.5, False), (2.3, 2.5, False), (1e-6, 1.9e-6, False), (2.3, 4.7, True), (1e-6, 1e-3, True)],
)
@pytest.mark.parametrize("posterior", [None, PosteriorPlan()])
def test_loss_that_more_than_doubles_is_unsteady(first, last, unsteady, posterior):
    task = msgspec.structs.replace(BUNDLE.description, posterior=posterior)
    weights = read_weights(BUNDLE.weights, BUNDLE.description.parameters)
    words = why_unsteady(Overshooting(first, last), weights, SAMPLES, task)
    assert (words is not None) == unsteady
    if words is not None:
        assert words.startswith(
            f"in 10 steps with learning rate 0.3 the loss rises from {first:.3g} to {last:.3g}; scale"
        )
