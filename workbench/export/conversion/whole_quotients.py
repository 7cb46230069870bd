"""Division of whole numbers as ONNX's own, which is exact.

`torch.onnx` divides them as float32, in seven operators, and wrongly from 2**24 on.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnx_ir import DataType
from onnxscript import opset18 as operators
from onnxscript.function_libs.torch_lib.ops import core
from torch._ops import OpOverload

WHOLE = (DataType.INT32, DataType.INT64)
"""What ONNX divides; other types are left to torch's translations."""


def divided(self: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """`aten.div` with a rounding mode: "trunc" or "floor"."""
    if self.dtype not in WHOLE or rounding_mode is None:
        return core.aten_div_mode(self, other, rounding_mode)
    return operators.Div(self, other) if rounding_mode == "trunc" else floor_divided(self, other)


def floor_divided(self: Any, other: Any) -> Any:
    """`aten.floor_divide`: one less than the quotient rounded towards 0 where the remainder has the other sign."""
    if self.dtype not in WHOLE:
        return core.aten_floor_divide(self, other)
    quotient = operators.Div(self, other)
    remainder = operators.Sub(self, operators.Mul(quotient, other))
    nothing: Any = operators.Constant(value_int=0)
    zero = operators.CastLike(nothing, self)
    opposed = operators.Less(operators.Mul(operators.Sign(remainder), operators.Sign(other)), zero)
    return operators.Sub(quotient, operators.CastLike(opposed, self))


TRANSLATIONS: dict[OpOverload, Callable[..., object]] = {
    torch.ops.aten.div.Tensor_mode: divided,
    torch.ops.aten.div.Scalar_mode: divided,
    torch.ops.aten.floor_divide.default: floor_divided,
}
"""Operator to what writes its nodes."""
