"""The attacks on what a helper sees find what there is to find, on a discriminator that nobody has trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn import functional

from benchmarks.inversion.decoder import rebuilt, trained_decoder
from benchmarks.inversion.helper_view import HelperView
from benchmarks.inversion.likeness import likeness
from benchmarks.inversion.membership import area_under_curve
from benchmarks.inversion.told_by_gradients import told_classes
from benchmarks.inversion.white_box import DiscriminatorFront, invert
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.activations import pack_activations, unpack_rows
from tests.support.known_pair import FOLDER, SIDE
from workbench.export.recipe.recipe import read_recipe
from workbench.recipe_folder import find_recipe

ROWS, CLASSES = 16, 10
SAMPLES = arrays(np.float32, 6, elements=st.floats(-10, 10, width=32))


@pytest.fixture(scope="module")
def discriminator() -> nn.Module:
    torch.manual_seed(3)
    return read_recipe(find_recipe("mnist_gan")).module.get_submodule("discriminator").train()


def bars() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures f32[16, 1, 28, 28], each with a bar of its own, and their classes."""
    pictures = torch.full((ROWS, 1, 28, 28), 0.1)
    for row in range(ROWS):
        pictures[row, :, row : row + 6, 4:24] = 0.9
    return pictures, torch.arange(ROWS) % CLASSES


def seen_by(discriminator: nn.Module, blocks: int) -> torch.Tensor:
    pictures, classes = bars()
    with torch.no_grad():
        seen = discriminator.block1(pictures, classes)
        return discriminator.block2(seen) if blocks > 1 else seen


@pytest.mark.parametrize(("blocks", "at_most"), [(1, 0.5), (2, 1.0)])
def test_optimisation_rebuilds_pictures_and_tells_every_class(discriminator, blocks, at_most):
    pictures, classes = bars()
    found = invert(DiscriminatorFront(discriminator, blocks), seen_by(discriminator, blocks), ROWS)
    mean = pictures.mean(0, keepdim=True).expand_as(pictures)
    assert likeness(found.pictures, pictures).squared_error < at_most * likeness(mean, pictures).squared_error
    assert found.classes.tolist() == classes.tolist()


def test_a_decoder_rebuilds_what_it_has_learned(discriminator):
    pictures, _ = bars()
    seen = seen_by(discriminator, 1)
    model = trained_decoder(seen, pictures, steps=60)
    mean = pictures.mean(0, keepdim=True).expand_as(pictures)
    assert likeness(rebuilt(model, seen), pictures).squared_error < likeness(mean, pictures).squared_error / 2


def test_gradients_of_the_last_block_tell_every_class(discriminator):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(ROWS, 32, 3, 3, generator=generator, requires_grad=True)
    _, classes = bars()
    (gradient,) = torch.autograd.grad(functional.softplus(-discriminator.block5(features, classes)).sum(), features)
    assert told_classes(discriminator, ["block5"], features.detach(), gradient).tolist() == classes.tolist()


@given(SAMPLES, SAMPLES)
def test_area_under_the_curve_is_how_often_a_member_has_more(members, others):
    area = area_under_curve(members, others)
    assert 0 <= area <= 1
    assert area_under_curve(others, members) == pytest.approx(1 - area)
    assert area_under_curve(members, members) == pytest.approx(0.5)
    assert area_under_curve(members + 100, others) == 1


def test_a_picture_is_like_itself_alone():
    pictures, _ = bars()
    same, other = likeness(pictures, pictures), likeness(pictures.roll(8, dims=2), pictures)
    assert (same.ssim, same.squared_error) == (1, 0)
    assert other.ssim < same.ssim
    assert other.squared_error > 0


def test_a_helper_sees_the_call_that_is_asked_for_as_it_was_packed():
    bundle = load_bundle(FOLDER)
    task, plan = bundle.description, bundle.description.split
    generator = np.random.default_rng(2)
    inputs = np.hstack([generator.random((8, SIDE * SIDE)), generator.integers(0, CLASSES, (8, 1))]).astype(np.float32)
    weights = read_weights(bundle.weights, task.parameters)
    view = HelperView(task, bundle.files, weights, 6, rows=8, call=1)
    assert plan is not None
    seen = view.seen(inputs, plan, generator).numpy()
    assert seen.shape == (8, 32)
    whole = HelperView(task, bundle.files, weights, 6, rows=8).seen(inputs, plan, generator).numpy()
    np.testing.assert_array_equal(seen, whole[:, 1])
    repacked = unpack_rows(pack_activations(whole, plan.activations), plan.activations, 8, whole.shape[1:])
    np.testing.assert_allclose(whole, repacked, atol=0.01)
