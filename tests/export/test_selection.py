"""`Where` as a product with a mask gives exactly what it gave, whatever is in the operands."""

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from workbench.export.conversion.onnx_conversion import checked_model, convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.graphs.selection import FEWEST_VALUES, select_by_products

ROWS, MANY = 3, FEWEST_VALUES
SELECTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a tensor or 0": lambda one, other: torch.where(one > 0, other, 0.0),
    "0 or a tensor": lambda one, other: torch.where(one > 0, 0.0, other),
    "a number or a tensor": lambda one, other: torch.where(one > 0, 2.5, other),
    "either of two": lambda one, other: torch.where(one > 0, one, other),
    "of one column": lambda one, other: torch.where(one > 0, one[:, :1], other),
    "one in the other": lambda one, other: torch.where(one > 0, torch.where(other > 1, one, 3 * other), 0.0),
}
SPECIAL = [0.0, -1.0, np.inf, -np.inf, np.nan, 3e38]


@cache
def converted(function: Callable[[Tensor, Tensor], Tensor], values: int = MANY) -> onnx.GraphProto:
    inputs = [GraphInput("one", (BATCH, values)), GraphInput("other", (BATCH, values))]
    # A graph's own outputs stay as they are, so something has to come behind the selection.
    return convert(lambda one, other: (function(one, other) * 2,), inputs, ["outputs"], rewrite=select_by_products)


def operators(graph: onnx.GraphProto) -> set[str]:
    return {node.op_type for node in graph.node}


def run(graph: onnx.GraphProto, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    content = checked_model(graph).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"one": one, "other": other})[0]


@pytest.mark.parametrize("function", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("special", SPECIAL, ids=str)
def test_a_product_selects_what_where_selects_infinite_and_undefined_values_included(function, special):
    graph = converted(function)
    assert "If" in operators(graph)
    assert "Where" not in operators(graph)
    random = np.random.default_rng(0)
    plain = random.normal(size=(ROWS, MANY)).astype(np.float32)
    for place in (0, 1):
        pair = [plain, plain[::-1].copy()]
        pair[place] = np.where(random.random(plain.shape) < 0.3, np.float32(special), pair[place])
        expected = function(*map(torch.from_numpy, pair)) * 2
        np.testing.assert_array_equal(run(graph, *pair), expected.numpy())


def test_infinities_that_cancel_in_the_sum_are_selected_exactly():
    graph = converted(SELECTIONS["a tensor or 0"])
    one, other = np.full((ROWS, MANY), -1, np.float32), np.zeros((ROWS, MANY), np.float32)
    other[0, :2] = np.inf, -np.inf
    np.testing.assert_array_equal(run(graph, one, other), np.zeros((ROWS, MANY)))


def test_a_sum_that_overflows_selects_all_the_same():
    graph = converted(SELECTIONS["a tensor or 0"])
    one, other = np.ones((ROWS, MANY), np.float32), np.full((ROWS, MANY), 1e38, np.float32)
    np.testing.assert_array_equal(run(graph, one, other), other * 2)


@pytest.mark.parametrize(
    ("function", "values"),
    [
        pytest.param(SELECTIONS["either of two"], MANY - 1, id="few values"),
        pytest.param(lambda one, other: torch.where(one > 0, other, -torch.inf), MANY, id="an infinite number"),
        pytest.param(lambda one, _: torch.where(one > 0, 1.0, 2.0), MANY, id="two numbers"),
        pytest.param(
            lambda one, other: torch.where(torch.ones(MANY) > 0, one, other), MANY, id="a condition that is known"
        ),
    ],
)
def test_no_product_where_it_would_be_slower_or_wrong(function, values):
    assert "If" not in operators(converted(function, values))
