"""Max pooling, its places and its gradient are torch's, whatever the windows."""

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workbench.export.conversion.onnx_conversion import checked_model, convert
from workbench.export.conversion.tracing import BATCH, GraphInput

SHAPE = (2, 9, 8)
WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (3, 4)},
    {"kernel_size": 2, "stride": 3, "dilation": 2},
    {"kernel_size": 2, "stride": 2, "dilation": 2},
    {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 4, "padding": 1, "ceil_mode": True},
    {"kernel_size": 1},
]


def assert_as_torch(function: Callable[[Tensor], tuple[Tensor, ...]], inputs: np.ndarray) -> None:
    """Compare the converted function with torch's, on all rows and on one."""
    graph = convert(function, [GraphInput("inputs", (BATCH, *inputs.shape[1:]))], ["first", "second"])
    content = checked_model(graph).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for rows in (inputs, inputs[:1]):
        expected = function(torch.from_numpy(rows))
        for found, value in zip(session.run(None, {"inputs": rows}), expected, strict=True):
            np.testing.assert_array_equal(found, value.numpy())


def values_with_ties(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_values_places_and_gradient_are_torchs_also_where_values_are_equal(windows):
    def pooled(inputs: Tensor) -> tuple[Tensor, Tensor]:
        values, places = functional.max_pool2d(inputs, **windows, return_indices=True)
        return values, places

    def differentiated(inputs: Tensor) -> tuple[Tensor, Tensor]:
        values, pull_back = torch.func.vjp(lambda each: functional.max_pool2d(each, **windows), inputs)
        return values, pull_back(values * values + 1)[0]

    for function in (pooled, differentiated):
        assert_as_torch(function, values_with_ties((5, *SHAPE)))


def test_planes_without_a_batch_are_pooled_each_by_itself():
    def differentiated(inputs: Tensor) -> tuple[Tensor, Tensor]:
        values, pull_back = torch.func.vjp(lambda each: functional.max_pool2d(each, 2), inputs)
        return values, pull_back(values + 1)[0]

    assert_as_torch(differentiated, values_with_ties((5, 4, 6)))


def test_unpooling_puts_values_back_where_they_were():
    def unpooled(inputs: Tensor) -> tuple[Tensor, Tensor]:
        values, places = functional.max_pool2d(inputs, 2, return_indices=True)
        return values, functional.max_unpool2d(values, places, 2, output_size=inputs.shape[-2:])

    assert_as_torch(unpooled, np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32))
