"""Whole numbers are divided as torch divides them, however large."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from workbench.export.conversion.onnx_conversion import checked_model, convert
from workbench.export.conversion.tracing import BATCH, GraphInput

NUMBERS = [0, 1, -1, 6, 7, -7, 2**24 + 1, -(2**24) - 1, 2**40 + 3, 2**62 + 1, 2**31 - 1, -(2**31), -(2**63)]
DIVISORS = [1, 7, -7, 2**16]


def divided(dtype: torch.dtype, divisor: int) -> list[np.ndarray]:
    """Rounded towards 0 and down, by a number and by a tensor, as the converted graph does it."""
    inputs = numbers(dtype)
    graph = convert(quotients(divisor), [GraphInput("inputs", (BATCH,), dtype)], ["a", "b", "c", "d"])
    content = checked_model(graph).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"inputs": inputs})


def numbers(dtype: torch.dtype) -> np.ndarray:
    limits = torch.iinfo(dtype)
    return torch.tensor([each for each in NUMBERS if limits.min <= each <= limits.max], dtype=dtype).numpy()


def quotients(divisor: int):
    def function(inputs: Tensor) -> tuple[Tensor, ...]:
        by = torch.full_like(inputs, divisor)
        return (
            torch.div(inputs, divisor, rounding_mode="trunc"),
            inputs // divisor,
            torch.div(inputs, by, rounding_mode="trunc"),
            torch.floor_divide(inputs, by),
        )

    return function


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("divisor", DIVISORS)
def test_quotients_are_torchs(dtype: torch.dtype, divisor: int):
    expected = quotients(divisor)(torch.from_numpy(numbers(dtype)))
    for found, value in zip(divided(dtype, divisor), expected, strict=True):
        np.testing.assert_array_equal(found, value.numpy())


def test_numbers_with_fractions_are_divided_as_before():
    def function(inputs: Tensor) -> tuple[Tensor]:
        return (torch.div(inputs, 0.75, rounding_mode="floor"),)

    inputs = np.linspace(-3, 3, 13, dtype=np.float32)
    content = checked_model(convert(function, [GraphInput("inputs", (BATCH,))], ["a"])).SerializeToString()
    (found,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"inputs": inputs})
    np.testing.assert_array_equal(found, function(torch.from_numpy(inputs))[0].numpy())
