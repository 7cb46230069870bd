"""Complex numbers as pairs of real tensors: ONNX has few operators for complex ones, and none of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from workbench.export.layers.layer_context import UnexportableError

REMEDY = "compute it from z.real and z.imag"


@dataclass(frozen=True, slots=True, eq=False)
class ComplexPair:
    """Stands for a complex tensor in torch's functions; both parts are f32 of its shape."""

    real: Tensor
    imag: Tensor

    dtype = torch.complex64

    @property
    def shape(self) -> torch.Size:
        """As of a tensor."""
        return self.real.shape

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        _types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """What `function` gives for pairs.

        Raises:
            UnexportableError: it is not known for complex numbers.
        """
        return _computed(function, args, kwargs or {})

    def __getattr__(self, name: str) -> object:
        """A method, as a tensor has it."""
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(name)
        return lambda *args, **kwargs: _computed(getattr(Tensor, name), (self, *args), kwargs)

    def __getitem__(self, index: object) -> ComplexPair:
        return ComplexPair(self.real[index], self.imag[index])  # type: ignore[index] # what a tensor takes

    def __neg__(self) -> ComplexPair:
        return ComplexPair(-self.real, -self.imag)

    def __add__(self, other: object) -> ComplexPair:
        other = pair_of(other)
        return ComplexPair(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other: object) -> ComplexPair:
        other = pair_of(other)
        return ComplexPair(self.real - other.real, self.imag - other.imag)

    def __rsub__(self, other: object) -> ComplexPair:
        return pair_of(other) - self

    def __mul__(self, other: object) -> ComplexPair:
        return _bilinear(torch.mul, self, other)

    def __truediv__(self, other: object) -> ComplexPair:
        if isinstance(other, ComplexPair):
            return self * other.conj() / (other.real * other.real + other.imag * other.imag)
        return ComplexPair(self.real / other, self.imag / other)  # type: ignore[operator] # a tensor or a number

    def __matmul__(self, other: object) -> ComplexPair:
        return _bilinear(torch.matmul, self, other)

    def __rmatmul__(self, other: object) -> ComplexPair:
        return _bilinear(torch.matmul, other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def conj(self) -> ComplexPair:
        """The conjugate."""
        return ComplexPair(self.real, -self.imag)

    def abs(self) -> Tensor:
        """The absolute value; its gradient at 0 is 0, as torch's."""
        square = self.real * self.real + self.imag * self.imag
        return torch.where(square > 0, torch.sqrt(torch.where(square > 0, square, 1.0)), 0.0)


def pair_of(value: object) -> ComplexPair:
    """A real or complex tensor or number as a pair."""
    if isinstance(value, ComplexPair):
        return value
    if isinstance(value, Tensor):
        return ComplexPair(value.real, value.imag) if value.is_complex() else ComplexPair(value, value.new_zeros(()))
    number = complex(value)  # type: ignore[call-overload] # a number
    return ComplexPair(torch.tensor(number.real), torch.tensor(number.imag))


def _bilinear(function: Callable[..., Tensor], one: object, other: object, *before: object) -> ComplexPair:
    """A function of two tensors or numbers, at least one of them a pair, that is linear in each."""
    one, other = (pair_of(each) if isinstance(each, Tensor) and each.is_complex() else each for each in (one, other))
    if not isinstance(other, ComplexPair):
        one = pair_of(one)
        return ComplexPair(function(*before, one.real, other), function(*before, one.imag, other))
    if not isinstance(one, ComplexPair):
        return ComplexPair(function(*before, one, other.real), function(*before, one, other.imag))
    return ComplexPair(
        function(*before, one.real, other.real) - function(*before, one.imag, other.imag),
        function(*before, one.real, other.imag) + function(*before, one.imag, other.real),
    )


def _einsum(equation: str, *operands: object) -> ComplexPair:
    one, other = operands[0] if len(operands) == 1 else operands  # type: ignore[misc] # a list, or each by itself
    return _bilinear(torch.einsum, one, other, equation)  # type: ignore[has-type] # as above


def _computed(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    name = function.__name__.removeprefix("fft_")
    if (ours := FUNCTIONS.get(name)) is not None:
        return ours(*args, **kwargs)
    if name not in PART_BY_PART:
        raise UnexportableError(f"it computes {name} of complex numbers, for which ONNX has no operators", REMEDY)
    real, imag = (function(*_parts(args, part), **kwargs) for part in ("real", "imag"))
    if isinstance(real, tuple | list) and not isinstance(real, torch.Size):
        return [ComplexPair(*parts) for parts in zip(real, imag, strict=True)]
    return ComplexPair(real, imag) if isinstance(real, Tensor) else real


def _parts(args: Sequence[Any], part: str) -> Sequence[Any]:
    """The arguments with one part of each pair."""
    taken: Sequence[Any] = pytree.tree_map(
        lambda value: getattr(value, part) if isinstance(value, ComplexPair) else value, args
    )
    return taken


FUNCTIONS: dict[str, Callable[..., object]] = {
    "abs": ComplexPair.abs,
    "absolute": ComplexPair.abs,
    "add": ComplexPair.__add__,
    "angle": lambda pair: torch.atan2(pair.imag, pair.real),
    "bmm": lambda one, other: _bilinear(torch.bmm, one, other),
    "conj": ComplexPair.conj,
    "div": ComplexPair.__truediv__,
    "einsum": _einsum,
    "imag": lambda pair: pair.imag,
    "is_complex": lambda _: True,
    "is_floating_point": lambda _: False,
    "matmul": lambda one, other: _bilinear(torch.matmul, one, other),
    "mul": lambda one, other: _bilinear(torch.mul, one, other),
    "neg": ComplexPair.__neg__,
    "real": lambda pair: pair.real,
    "resolve_conj": lambda pair: pair,
    "sub": lambda one, other: pair_of(one) - other,
    "view_as_real": lambda pair: torch.stack([pair.real, pair.imag], -1),
    **{name: getattr(ComplexPair, name) for name in ("__radd__", "__rsub__", "__rmul__", "__rmatmul__")},
}
"""By the name of torch's function or method."""
PART_BY_PART = frozenset(
    {
        *("cat", "chunk", "clone", "contiguous", "detach", "expand", "fftshift", "flatten", "flip", "ifftshift"),
        *("index_select", "mean", "movedim", "narrow", "pad", "permute", "repeat", "reshape", "roll", "select"),
        *("split", "squeeze", "stack", "sum", "swapaxes", "transpose", "unbind", "unflatten", "unsqueeze", "view"),
        *("dim", "numel", "size"),
    }
)
"""What moves or adds numbers, and so does the same to both parts; or tells their number alone."""
