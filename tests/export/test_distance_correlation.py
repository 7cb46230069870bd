"""The penalty on what activations tell of samples, beside torch's own gradient of the definition."""

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.distance_correlation import distance_correlation, penalty_gradient
from fleet_protocol.scaling import Scale, Scaling, columns_of
from workbench.recipe_folder import find_bundle


def as_defined(samples: Tensor, values: Tensor) -> Tensor:
    """Székely et al. 2007, word for word."""

    def centred(rows: Tensor) -> Tensor:
        differences = rows.unsqueeze(1) - rows
        distances = (differences.square().sum(2) + torch.eye(len(rows))).sqrt() * (1 - torch.eye(len(rows)))
        return distances - distances.mean(0) - distances.mean(1, keepdim=True) + distances.mean()

    one, other = centred(samples), centred(values)
    return ((one * other).mean() / ((one * one).mean() * (other * other).mean()).sqrt()).sqrt()


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(2, 1, 1), (9, 3, 5), (32, 20, 7)])
def test_value_and_gradient_are_those_of_the_definition(rows: int, inputs: int, outputs: int):
    generator = torch.Generator().manual_seed(rows)
    samples = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    mixed = samples @ torch.randn(inputs, outputs, generator=generator, dtype=torch.float64)
    values = (
        mixed.tanh() + 0.1 * torch.randn(rows, outputs, generator=generator, dtype=torch.float64)
    ).requires_grad_()
    expected = as_defined(samples, values)
    (gradient,) = torch.autograd.grad(expected, values)
    found, found_gradient = distance_correlation(samples.numpy(), values.detach().numpy())
    np.testing.assert_allclose(found, expected.item(), rtol=1e-10)
    np.testing.assert_allclose(found_gradient, gradient, rtol=0, atol=1e-9)


def test_values_that_do_not_vary_and_single_rows_have_no_correlation():
    for samples, values in (
        (np.ones((4, 2)), np.eye(4)),
        (np.eye(4), np.ones((4, 3))),
        (np.ones((1, 2)), np.ones((1, 3))),
    ):
        correlation, gradient = distance_correlation(samples, values)
        assert correlation == 0
        assert not gradient.any()


def test_a_turned_and_scaled_copy_correlates_fully():
    samples = np.random.default_rng(0).normal(size=(20, 2))
    turned = 7 * samples @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 3
    assert distance_correlation(samples, turned)[0] == pytest.approx(1)


def test_penalty_is_weighed_and_has_the_shape_of_what_leaves():
    task = load_bundle(find_bundle("mnist_cnn")).description
    random = np.random.default_rng(0)
    samples, activations = (random.normal(size=(6, *shape)).astype(np.float32) for shape in ((1, 28, 28), (8, 14, 14)))
    _, expected = distance_correlation(samples.reshape(6, -1), activations.reshape(6, -1))
    found = penalty_gradient(task, 0.5, samples, activations)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.reshape(activations.shape) / 2, rtol=1e-5)


def test_columns_of_unlike_units_count_alike():
    task = load_bundle(find_bundle("vibration_autoencoder")).description
    columns = columns_of(task.input_blocks)
    scale = Scale([5.0] * columns, np.logspace(-3, 3, columns).tolist())
    task = msgspec.structs.replace(task, scaling=Scaling(scale))
    random = np.random.default_rng(0)
    standard = random.normal(size=(8, columns))
    activations = random.normal(size=(8, 3)).astype(np.float32)
    samples = (5.0 + standard * scale.deviation).astype(np.float32)
    found = penalty_gradient(task, 1.0, samples.reshape(8, *task.input.shape), activations)
    np.testing.assert_allclose(found, distance_correlation(standard, activations)[1], atol=1e-4)
