"""Losses, optimisers and clipping inside the graph are those of torch, with every rate as an input."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime.log_priors import BALANCE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelSchema
from tests.export.test_layers import Tokens
from tests.export.test_sequences import LastStep, SelfAttention
from tests.support.training import (
    BATCH,
    LAST_BATCH,
    TOLERANCE,
    Rates,
    batches,
    build,
    export,
    initial_weights,
    make_recipe,
    run_training,
    samples,
    train_exported,
    train_with_torch,
    with_head,
)
from workbench.export.conversion.unexportable import explained
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.task_file import LossSettings

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


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adaptive_step_of_a_unit_without_gradient_is_none(name: str):
    """The simplifier takes a constant of 1e-8 for zero: added as one, it is gone, and 0 / 0 is left."""
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    nn.init.constant_(module[0].bias, -50.0)
    recipe = make_recipe(module, (8,), optimiser=name)
    dead = module[0].weight.detach().numpy().ravel().copy()
    trained, _ = train_exported(recipe)
    expected, _ = train_with_torch(recipe, functional.cross_entropy, Rates(), OPTIMISERS[name])
    np.testing.assert_array_equal(trained[: dead.size], dead)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


def test_rates_that_the_task_leaves_at_zero_are_no_part_of_the_graph():
    used = {
        rate: {entry.name for entry in export(make_recipe(perceptron(), (8,), rates=Rates(**{rate: 0.5}))).get_inputs()}
        for rate in ("learning_rate", "weight_decay", "gradient_clip", "proximal")
    }
    optional = {"weight_decay", "gradient_clip", "proximal"}
    assert {rate: names & optional for rate, names in used.items()} == {rate: {rate} & optional for rate in used}


LAYERS_PER_SAMPLE = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)), (8,)),
    "convolution": (
        lambda: with_head(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1)),
        (2, 8, 8),
    ),
    "norms": (lambda: with_head(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.LayerNorm([4, 4, 4])), (2, 6, 6)),
    "embedding": (lambda: with_head(Tokens(), nn.Embedding(10, 3)), (8,)),
    "attention": (lambda: with_head(SelfAttention(need_weights=False)), (3, 8)),
    "gru": (lambda: with_head(LastStep(nn.GRU(8, 6, batch_first=True))), (3, 8)),
    "lstm": (lambda: with_head(LastStep(nn.LSTM(8, 6, batch_first=True))), (3, 8)),
}


@pytest.mark.parametrize("name", LAYERS_PER_SAMPLE)
def test_each_sample_is_clipped_by_itself_as_torch_would(name: str):
    """A batch of eight, one of five and padding, and one of each sample alone: none exceeds the clip norm."""
    recipe = make_recipe(*build(*LAYERS_PER_SAMPLE[name]))
    session, before = export(recipe, per_sample=True), initial_weights(recipe)
    rates, (rows, _) = Rates(learning_rate=1.0, gradient_clip=CLIP), batches()
    clipped = clipped_gradients(recipe, rows[-1])
    for width in (BATCH, LAST_BATCH):
        real = (np.arange(BATCH) < width).astype(np.float32)
        trained, _ = run_training(session, recipe, rates, rows[-1:], real[None])
        np.testing.assert_allclose(before - trained, clipped[:width].mean(axis=0), rtol=0, atol=TOLERANCE)
    for alone in np.eye(BATCH, dtype=np.float32):
        trained, _ = run_training(session, recipe, rates, rows[-1:], alone[None])
        assert np.linalg.norm(trained - before) <= CLIP * (1 + TOLERANCE)
    assert np.linalg.norm(clipped, axis=1).max() > CLIP * (1 - 1e-3)  # the limit was felt


def clipped_gradients(recipe: Recipe, rows: np.ndarray) -> np.ndarray:
    """f32[B, P]: torch's gradient of each of these samples alone, scaled down to the clip norm where it is longer."""
    inputs, labels = map(torch.from_numpy, samples(recipe))
    gradients = []
    for row in rows:
        recipe.module.zero_grad()
        functional.cross_entropy(recipe.module(inputs[row : row + 1]), labels[row : row + 1]).backward()
        nn.utils.clip_grad_norm_(recipe.module.parameters(), CLIP)
        gradients.append(torch.cat([value.grad.ravel() for value in recipe.module.parameters()]).numpy())
    return np.stack(gradients)


def test_batch_statistics_have_no_per_sample_gradient():
    recipe = make_recipe(nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)), (8,))
    with (
        pytest.raises(
            ConfigurationError, match=r"module '1' \(BatchNorm1d\).*use GroupNorm, or batch_norm = \"frozen\""
        ),
        explained("train_per_sample.onnx", recipe.module, torch.zeros(1, 8)),
    ):
        export(recipe, per_sample=True)


def test_frozen_batch_norm_has_per_sample_gradients():
    module = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    recipe = make_recipe(module, (8,), batch_norm="frozen")
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
