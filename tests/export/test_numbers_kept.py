"""Constants reach the graph as they are, gradients are selected and not multiplied away, losses are torch's."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fleet_protocol.sample_schema import LabelSchema
from tests.support.training import TOLERANCE, Rates, make_recipe, train_exported, train_with_torch
from workbench.export.conversion.decompositions import threshold_backward
from workbench.export.conversion.onnx_conversion import checked_model, convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.recipe.losses import LOSSES
from workbench.export.recipe.task_file import LossSettings


def run_converted(function, values: np.ndarray) -> np.ndarray:
    """`function` of f32[N, 4], as onnxruntime computes it from the converted graph."""
    graph = convert(lambda tensor: (function(tensor),), [GraphInput("inputs", (BATCH, 4))], ["outputs"])
    session = onnxruntime.InferenceSession(checked_model(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"inputs": values})[0]


@pytest.mark.parametrize("constant", [1e-9, 1e-12, 1e-30, 1e-8, 1e-7])
def test_a_small_addend_keeps_the_logarithm_of_zero_finite(constant: float):
    found = run_converted(lambda values: torch.log(values + constant), np.zeros((2, 4), np.float32))
    np.testing.assert_allclose(found, np.log(np.float32(constant)), rtol=1e-6)


def test_rms_norm_of_zeros_is_zero():
    found = run_converted(lambda values: functional.rms_norm(values, (4,), eps=1e-8), np.zeros((2, 4), np.float32))
    np.testing.assert_array_equal(found, np.zeros((2, 4)))


@pytest.mark.parametrize(
    "function",
    [
        lambda values: values * 1.000001,
        lambda values: values / 0.999999,
        lambda values: values * 1000 - 1e-9,
        lambda values: (values - 1e-9) * 1e9,
    ],
)
def test_a_constant_next_to_a_neutral_one_keeps_its_effect(function):
    values = np.linspace(0, 1e-6, 8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(run_converted(function, values), function(torch.from_numpy(values)).numpy(), rtol=1e-7)


def test_exact_zeros_and_ones_are_folded_away():
    graph = convert(lambda tensor: ((tensor * 1 + 0) / 1 - 0.0 + 2,), [GraphInput("inputs", (BATCH, 4))], ["outputs"])
    assert [node.op_type for node in graph.node] == ["Add"]


def test_every_small_constant_is_in_the_graph():
    graph = convert(lambda tensor: (tensor + 1e-9,), [GraphInput("inputs", (BATCH, 4))], ["outputs"])
    (constant,) = (onnx.numpy_helper.to_array(entry) for entry in graph.initializer)
    assert constant == np.float32(1e-9)


def test_relu_passes_no_infinite_gradient_where_it_is_flat():
    gradient = torch.tensor([torch.inf, -torch.inf, torch.nan, 2.0])
    assert threshold_backward(gradient, torch.tensor([0.0, 0.0, 0.0, 3.0]), 0).tolist() == [0, 0, 0, 2]


def test_a_class_that_the_model_rules_out_costs_nothing():
    scores = torch.tensor([[1.0, -torch.inf, 2.0]], requires_grad=True)
    labels = torch.tensor([2])
    loss = LOSSES["cross_entropy"].rows(scores, labels, LossSettings())
    torch.testing.assert_close(loss.sum(), functional.cross_entropy(scores, labels))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    (expected,) = torch.autograd.grad(functional.cross_entropy(scores, labels), scores)
    torch.testing.assert_close(gradient, expected)


def test_huber_of_an_infinite_distance_has_a_finite_gradient():
    outputs = torch.tensor([[torch.inf, 3.0, -0.25]], requires_grad=True)
    LOSSES["huber"].rows(outputs, torch.zeros(1, 3), LossSettings()).sum().backward()
    torch.testing.assert_close(outputs.grad, torch.tensor([[1 / 3, 1 / 3, -0.25 / 3]]))


KNOTS = torch.tensor([[0.0, -0.0, 1.0, -1.0, 88.0, -88.0, 1e4, -1e4, 1e-8, 0.3]])
HALVES = (torch.arange(10) % 3 / 2).unsqueeze(0)


@pytest.mark.parametrize(
    ("loss", "targets", "reference"),
    [
        ("binary_cross_entropy", torch.zeros(1, 10), functional.binary_cross_entropy_with_logits),
        ("binary_cross_entropy", torch.ones(1, 10), functional.binary_cross_entropy_with_logits),
        ("binary_cross_entropy", HALVES, functional.binary_cross_entropy_with_logits),
        ("mean_squared_error", HALVES, functional.mse_loss),
        ("huber", HALVES, functional.huber_loss),
        ("huber", torch.zeros(1, 10), functional.huber_loss),
        ("cross_entropy", torch.tensor([0]), functional.cross_entropy),
        ("cross_entropy", torch.tensor([7]), functional.cross_entropy),
    ],
)
def test_loss_and_gradient_are_torchs_at_zero_at_knots_and_far_out(loss: str, targets: Tensor, reference):
    ours, theirs = KNOTS.clone().requires_grad_(), KNOTS.clone().requires_grad_()
    value, expected = LOSSES[loss].rows(ours, targets, LossSettings()).mean(), reference(theirs, targets)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [[], [0.5, 2.0, 1.0]])
def test_cross_entropy_with_all_its_settings_is_torchs(smoothing: float, weights: list[float]):
    scores, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 2, 1, 0])
    settings = LossSettings(label_smoothing=smoothing, class_weights=weights)
    expected = functional.cross_entropy(
        scores,
        labels,
        weight=torch.tensor(weights) if weights else None,
        label_smoothing=smoothing,
        reduction="none",
    )
    torch.testing.assert_close(LOSSES["cross_entropy"].rows(scores, labels, settings), expected)


def test_binary_cross_entropy_leaves_logits_of_exactly_zero():
    head = nn.Linear(8, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    recipe = make_recipe(head, (8,), label=LabelSchema(classes=3, kind="multi_label"))
    trained, losses = train_exported(recipe, Rates(learning_rate=0.5))
    assert losses[0] == pytest.approx(np.log(2), rel=1e-6)
    expected, _ = train_with_torch(
        recipe, functional.binary_cross_entropy_with_logits, Rates(learning_rate=0.5), torch.optim.SGD
    )
    assert np.abs(trained).max() > 0.1
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)
