"""The exported step with a correction is a few lines of NumPy, for every optimiser whose movement tells gradients."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from tests.support.training import TOLERANCE, Rates, batches, export, initial_weights, make_recipe, samples
from workbench.export.recipe.recipe import Recipe

CLASSES, VALUES = 4, 8
RATES = Rates(learning_rate=0.05, weight_decay=0.1, gradient_clip=0.5)
MOMENTUM = 0.9


def corrected(optimiser: str = "sgd", rates: Rates = RATES) -> Recipe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        recipe = make_recipe(nn.Linear(VALUES, CLASSES), (VALUES,), optimiser=optimiser, rates=rates)
    training = msgspec.structs.replace(recipe.task.training, correction="scaffold")
    return replace(recipe, task=msgspec.structs.replace(recipe.task, training=training))


def gradient(weights: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the mean cross entropy of a linear model's scores."""
    matrix, bias = weights[: CLASSES * VALUES].reshape(CLASSES, VALUES), weights[CLASSES * VALUES :]
    scores = inputs @ matrix.T + bias
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1
    return np.concatenate([(shares.T @ inputs).ravel(), shares.sum(axis=0)]) / len(labels)


def by_hand(recipe: Recipe, correction: np.ndarray, rates: Rates = RATES) -> np.ndarray:
    inputs, labels = samples(recipe)
    weights, velocity = initial_weights(recipe).astype(np.float64), 0.0
    for row, real in zip(*batches(), strict=True):
        chosen = row[real > 0]
        found = gradient(weights, inputs[chosen], labels[chosen])
        found *= min(1.0, rates.gradient_clip / np.linalg.norm(found))
        found = found + correction + rates.weight_decay * weights
        if recipe.task.training.optimiser != "sgd":
            velocity = MOMENTUM * velocity + found
            found = found + MOMENTUM * velocity if recipe.task.training.optimiser == "nesterov" else velocity
        weights = weights - rates.learning_rate * found
    return weights


def by_graph(recipe: Recipe, correction: np.ndarray, rates: Rates = RATES) -> np.ndarray:
    session = export(recipe)
    inputs, labels = samples(recipe)
    rows, mask = batches()
    feeds = {"weights": initial_weights(recipe), "inputs": inputs, "labels": labels, "batches": rows, "mask": mask}
    feeds |= {name: np.array(getattr(rates, name), np.float32) for name in Rates.__dataclass_fields__}
    feeds["correction"] = correction
    return session.run(["trained_weights"], {entry.name: feeds[entry.name] for entry in session.get_inputs()})[0]


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "nesterov"])
def test_correction_is_added_to_each_gradient_behind_the_clip(optimiser: str):
    recipe = corrected(optimiser)
    vector = np.random.default_rng(1).normal(size=initial_weights(recipe).size).astype(np.float32)
    found = {scale: by_graph(recipe, scale * vector) for scale in (np.float32(0), np.float32(1))}
    for scale, trained in found.items():
        np.testing.assert_allclose(trained, by_hand(recipe, scale * vector), rtol=0, atol=TOLERANCE)
    assert all(np.abs(one - other).max() > 0.1 for one, other in pairwise(found.values()))


def test_graph_takes_a_correction_only_where_the_task_corrects():
    plain = make_recipe(nn.Linear(VALUES, CLASSES), (VALUES,))
    taken = [{entry.name for entry in export(recipe).get_inputs()} for recipe in (plain, corrected())]
    assert ["correction" in names for names in taken] == [False, True]


def test_adaptive_coefficient_has_its_input_though_it_begins_with_nothing():
    recipe = make_recipe(nn.Linear(VALUES, CLASSES), (VALUES,))
    training = msgspec.structs.replace(recipe.task.training, adaptive_proximal=True)
    adapting = replace(recipe, task=msgspec.structs.replace(recipe.task, training=training))
    assert "proximal" in {entry.name for entry in export(adapting).get_inputs()}
    assert adapting.task.training.proximal == 0.0
