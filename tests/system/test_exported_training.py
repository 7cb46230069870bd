"""Losses, optimisers and clipping inside the graph are those of torch, with every rate as an input."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fleet_protocol.bundle import LabelSchema
from tests.support.training import (
    TOLERANCE,
    Rates,
    batches,
    export,
    initial_weights,
    make_recipe,
    run_training,
    samples,
    train_exported,
    train_with_torch,
)
from workbench.export.losses import BALANCE, LossSettings

CLASSES, MULTI_LABEL = LabelSchema(4), LabelSchema(4, "multi_label")
REGRESSION, RECONSTRUCTION = LabelSchema(kind="regression", values=4), LabelSchema(kind="reconstruction")
CLASS_WEIGHTS = [0.5, 1.0, 2.0, 4.0]
ALL_RATES = Rates(learning_rate=0.05, weight_decay=0.1, gradient_clip=0.5, proximal=0.3)
CLIP = 0.05


def perceptron(outputs: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, outputs))


def weighted_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores, labels, torch.tensor(CLASS_WEIGHTS), reduction="none").mean()


LOSSES = {
    "cross_entropy": (CLASSES, LossSettings(), functional.cross_entropy),
    "cross_entropy smoothed": (
        CLASSES,
        LossSettings(label_smoothing=0.1),
        partial(functional.cross_entropy, label_smoothing=0.1),
    ),
    "cross_entropy weighted": (CLASSES, LossSettings(class_weights=CLASS_WEIGHTS), weighted_cross_entropy),
    "binary_cross_entropy": (MULTI_LABEL, LossSettings(), functional.binary_cross_entropy_with_logits),
    "mean_squared_error": (REGRESSION, LossSettings(), functional.mse_loss),
    "huber": (REGRESSION, LossSettings(huber_delta=0.7), partial(functional.huber_loss, delta=0.7)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_trains_as_torch_does(name: str):
    label, settings, loss = LOSSES[name]
    recipe = make_recipe(perceptron(), (8,), label=label, loss=name.partition(" ")[0], settings=settings)
    trained, losses = train_exported(recipe)
    expected, expected_losses = train_with_torch(recipe, loss, Rates(), torch.optim.SGD)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("classes", [4, 60])
def test_balanced_cross_entropy_counts_all_labels_of_the_device(classes: int, per_sample: bool):
    """Sixty classes are more than there are samples: some have never been seen."""
    recipe = make_recipe(perceptron(classes), (8,), label=LabelSchema(classes), loss="balanced_cross_entropy")
    _, labels = samples(recipe)
    counts = torch.from_numpy(np.bincount(labels, minlength=classes))
    log_prior = BALANCE * torch.log((counts + 1) / (len(labels) + classes))
    trained, losses = train_exported(recipe, per_sample=per_sample)
    expected, expected_losses = train_with_torch(
        recipe, lambda scores, chosen: functional.cross_entropy(scores + log_prior, chosen), Rates(), torch.optim.SGD
    )
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)


def test_autoencoder_learns_its_inputs_without_labels():
    recipe = make_recipe(perceptron(outputs=8), (8,), label=RECONSTRUCTION)
    session = export(recipe)
    assert "labels" not in [entry.name for entry in session.get_inputs()]
    same_as_inputs = make_recipe(recipe.module, (8,), label=LabelSchema(kind="regression", values=8))
    trained, _ = run_training(session, recipe, Rates(), *batches())
    assert np.abs(trained - initial_weights(same_as_inputs)).max() > 1e-3


OPTIMISERS = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_with_every_rate_steps_as_torch_does(name: str):
    recipe = make_recipe(perceptron(), (8,), optimiser=name, rates=ALL_RATES)
    trained, _ = train_exported(recipe, ALL_RATES)
    expected, _ = train_with_torch(recipe, functional.cross_entropy, ALL_RATES, OPTIMISERS[name])
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


def test_rates_that_the_task_leaves_at_zero_are_no_part_of_the_graph():
    used = {
        rate: {entry.name for entry in export(make_recipe(perceptron(), (8,), rates=Rates(**{rate: 0.5}))).get_inputs()}
        for rate in ("learning_rate", "weight_decay", "gradient_clip", "proximal")
    }
    optional = {"weight_decay", "gradient_clip", "proximal"}
    assert {rate: names & optional for rate, names in used.items()} == {rate: {rate} & optional for rate in used}


def test_no_sample_contributes_more_than_the_clip_norm():
    recipe = make_recipe(perceptron(), (8,))
    session, before = export(recipe, per_sample=True), initial_weights(recipe)
    rates = Rates(learning_rate=1.0, gradient_clip=CLIP)
    for row in range(20):
        trained, _ = run_training(session, recipe, rates, np.array([[row]]), np.ones((1, 1), np.float32))
        assert np.linalg.norm(trained - before) <= CLIP * (1 + TOLERANCE)


def test_per_sample_gradients_are_clipped_one_by_one_and_averaged():
    recipe = make_recipe(perceptron(), (8,))
    session, before = export(recipe, per_sample=True), initial_weights(recipe)
    (rows, mask), rates = batches(), Rates(learning_rate=1.0, gradient_clip=CLIP)
    alone = [
        before - run_training(session, recipe, rates, np.array([[row]]), np.ones((1, 1), np.float32))[0]
        for row in rows[-1][mask[-1] > 0]
    ]
    together, _ = run_training(session, recipe, rates, rows[-1:], mask[-1:])
    np.testing.assert_allclose(before - together, np.mean(alone, axis=0), rtol=0, atol=TOLERANCE)


def test_per_sample_graph_with_a_clip_out_of_reach_trains_as_the_other_does():
    recipe = make_recipe(perceptron(), (8,))
    for one, other in zip(train_exported(recipe), train_exported(recipe, per_sample=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_weights_without_a_gradient_stay_as_they_are(optimiser: str):
    class UnusedRow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 3), nn.Linear(3, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.layer(inputs) * torch.tensor([1.0, 0.0, 1.0]))

    recipe = make_recipe(UnusedRow(), (6,), optimiser=optimiser)
    before = initial_weights(recipe)
    trained, losses = train_exported(recipe)
    assert np.isfinite(losses).all()
    np.testing.assert_array_equal(trained[6:12], before[6:12])
    assert np.abs(trained - before).max() > 1e-3
