"""Pooling in three dimensions, put together from what ONNX has, gives torch's values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from workbench.export.conversion.averaged_volumes import avg_pool3d, avg_pool3d_backward
from workbench.export.layers.exportable_functions import max_pool3d

SIZES = (5, 6, 4)
TRIPLES = st.tuples(*[st.integers(1, 3)] * 3)
SWITCHES = st.tuples(st.booleans(), st.booleans(), st.booleans())
"""Padded, rounded up, padding counts."""
LEADING = st.sampled_from([(2, 3), (3,)])


def halved(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The most padding that torch takes."""
    return tuple(size // 2 for size in kernel)


@settings(max_examples=25, deadline=None)
@given(TRIPLES, TRIPLES, TRIPLES, SWITCHES, LEADING)
def test_maxima_are_torchs_and_so_is_who_gets_the_gradient_among_equals(kernel, stride, dilation, switches, leading):
    padded, ceil, _ = switches
    spread = tuple(min(each, 2) if size < 3 else 1 for each, size in zip(dilation, kernel, strict=True))
    values = torch.randint(0, 3, (*leading, *SIZES)).float().requires_grad_()
    given_to_both = (kernel, stride, halved(kernel) if padded else 0, spread, ceil)
    (expected, ours) = (pool(values, *given_to_both) for pool in (functional.max_pool3d, max_pool3d))
    assert torch.equal(ours, expected)
    weights = torch.rand(expected.shape)
    gradients = [torch.autograd.grad((each * weights).sum(), values)[0] for each in (ours, expected)]
    torch.testing.assert_close(*gradients)


@settings(max_examples=25, deadline=None)
@given(TRIPLES, TRIPLES, SWITCHES, st.sampled_from([None, 1, 5]), LEADING)
def test_averages_are_torchs_and_so_are_their_gradients(kernel, stride, switches, divisor, leading):
    padded, ceil, counted = switches
    values = torch.rand(*leading, *SIZES, requires_grad=True)
    how = (kernel, stride, halved(kernel) if padded else (0,), ceil, counted, divisor)
    expected = functional.avg_pool3d(values, kernel, stride, how[2], ceil, counted, divisor)
    torch.testing.assert_close(avg_pool3d(values, *how), expected)
    weights = torch.rand(expected.shape)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), values)
    torch.testing.assert_close(avg_pool3d_backward(weights, values, *how), wanted)


@pytest.mark.parametrize("kernel", [2, (1, 2, 3)])
def test_one_size_serves_all_axes_and_the_stride_is_that_of_the_window(kernel):
    values = torch.rand(2, 3, *SIZES)
    assert torch.equal(max_pool3d(values, kernel), functional.max_pool3d(values, kernel))
    each = (kernel,) if isinstance(kernel, int) else kernel
    torch.testing.assert_close(avg_pool3d(values, each), functional.avg_pool3d(values, kernel))
