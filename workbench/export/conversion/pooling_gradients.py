"""The backward pass of pooling: of averages as matrix products, of maxima by the places that they came from.

Averaging windows is linear and separable: `pool(x) = rows @ x @ columns.T` with constant matrices that follow from
the sizes. Its gradient is `rows.T @ gradient @ columns`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def avg_pool2d(  # noqa: PLR0917 - the operator's own signature
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Sums over windows, divided by `divisor_override`, which ONNX's own pooling can't; other pooling is left to it."""
    if divisor_override is None:
        return NotImplemented  # type: ignore[no-any-return] # what make_fx takes for "leave it as it is"
    kernel, padding = _pair(kernel), _pair(padding)
    stride = _pair(stride or kernel)
    rows, columns = (
        (window_matrix(windows, size, kernel[axis], stride[axis], padding[axis], count_padding=True) > 0).float()
        for axis, size in zip((-2, -1), inputs.shape[-2:], strict=True)
        for windows in [window_count(size, kernel[axis], stride[axis], padding[axis], ceil_mode=ceil_mode)]
    )
    return rows @ inputs @ columns.T / float(divisor_override)


def avg_pool2d_backward(  # noqa: PLR0917 - the operator's own signature
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    _ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Gradient of `aten.avg_pool2d`, which serves one dimension too."""
    kernel, padding = _pair(kernel), _pair(padding)
    stride = _pair(stride or kernel)
    rows, columns = (
        window_matrix(
            gradient.shape[axis],
            inputs.shape[axis],
            kernel[axis],
            stride[axis],
            padding[axis],
            count_padding=count_include_pad,
        )
        for axis in (-2, -1)
    )
    if divisor_override is not None:
        rows, columns = (rows > 0) / float(divisor_override), (columns > 0).to(gradient.dtype)
    return _spread(gradient, rows, columns)


def adaptive_avg_pool2d(inputs: Tensor, sizes: Sequence[int]) -> Tensor:
    """Averages over windows that divide the inputs into `sizes` parts, evenly or not."""
    rows, columns = (adaptive_matrix(sizes[axis], inputs.shape[axis]) for axis in (-2, -1))
    return rows @ inputs @ columns.T


def adaptive_avg_pool2d_backward(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of `adaptive_avg_pool2d`."""
    rows, columns = (adaptive_matrix(gradient.shape[axis], inputs.shape[axis]) for axis in (-2, -1))
    return _spread(gradient, rows, columns)


def max_pool2d_backward(  # noqa: PLR0917 - the operator's own signature
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    _padding: Sequence[int],
    dilation: Sequence[int],
    _ceil_mode: bool,
    places: Tensor,
) -> Tensor:
    """Gradient of `aten.max_pool2d_with_indices`. Only where windows overlap can one place be in `places` twice."""
    windows = zip(_pair(kernel), _pair(stride or kernel), _pair(dilation), strict=True)
    if all(step > spread * (size - 1) for size, step, spread in windows):
        unpooled: Tensor = torch.ops.aten.max_unpool2d.default(gradient, places, inputs.shape[-2:])
        return unpooled
    flat = torch.zeros_like(inputs).flatten(-2)
    return flat.scatter_add(-1, places.flatten(-2), gradient.flatten(-2)).reshape(inputs.shape)


def window_matrix(windows: int, size: int, kernel: int, stride: int, padding: int, *, count_padding: bool) -> Tensor:
    """f32[windows, size]: row i averages the i-th window. Padding counts as zeros, or not at all."""
    matrix = np.zeros((windows, size), dtype=np.float32)
    for window in range(windows):
        start = window * stride - padding
        end = min(start + kernel, size + padding)
        first, last = max(start, 0), min(end, size)
        matrix[window, first:last] = 1 / (end - start if count_padding else last - first)
    return torch.tensor(matrix.tolist())


def adaptive_matrix(windows: int, size: int) -> Tensor:
    """f32[windows, size]: row i averages from floor(i * size / windows) to ceil((i + 1) * size / windows)."""
    matrix = np.zeros((windows, size), dtype=np.float32)
    for window in range(windows):
        start, end = window * size // windows, -(-(window + 1) * size // windows)
        matrix[window, start:end] = 1 / (end - start)
    return torch.tensor(matrix.tolist())


def _spread(gradient: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows.T @ gradient @ columns


def _pair(sizes: Sequence[int]) -> Sequence[int]:
    return sizes if len(sizes) == 2 else [sizes[0], sizes[0]]


def window_count(size: int, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """How many windows fit; with `ceil_mode` the last one may go over the edge, but must start before it."""
    windows = (size + 2 * padding - kernel + (stride - 1 if ceil_mode else 0)) // stride + 1
    return windows - 1 if ceil_mode and (windows - 1) * stride >= size + padding else windows
