"""What draws from torch's generator, drawing from the step's seed instead: the same job twice gives the same bytes.

`SeededNoise` catches the calls by their names in torch's interface, so that a model may draw in any of these ways:
dropout in all its kinds, `rand`, `randn`, `bernoulli`, `exponential_`, stochastic depth, Gumbel softmax, RReLU. What
else draws is refused by name.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from workbench.export.layers.layer_context import LayerContext, UnexportableError
from workbench.export.layers.random_words import MODULUS, normal, random_words, uniform, whole_numbers

Draw = Callable[..., Tensor]
"""The function that is replaced, with the context in front of its arguments."""

SELU_FLOOR = 1.7580993408473766
"""Minus the lowest value of SELU, which alpha dropout sets values to: Klambauer et al. 2017."""


class SeededNoise(TorchFunctionMode):
    """Inside of the block, torch's random functions draw from `context`.

    Raises:
        UnexportableError: a function is called that draws in a way that no graph can.
    """

    def __init__(self, context: LayerContext) -> None:
        super().__init__()
        self._context = context

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Draw from the seed, or call what was meant."""
        named = kwargs or {}
        if function in REFUSED:
            raise UnexportableError(f"it calls {function.__name__}, which draws random numbers", REMEDY)
        if (draw := DRAWS.get(function)) is None:
            return function(*args, **named)
        taken = {RENAMED.get(name, name): value for name, value in named.items() if name not in IGNORED}
        return draw(self._context, *args, **taken)


REMEDY = (
    "draw with torch.rand, torch.randn or torch.bernoulli, which follow the seed of the step; use nn.AdaptiveMaxPool2d"
    " instead of fractional pooling"
)
IGNORED = frozenset({"generator", "device", "layout", "pin_memory", "requires_grad", "memory_format", "inplace", "out"})
"""Settings that say nothing about the numbers that are drawn."""
RENAMED = {"train": "training", "input": "inputs"}
"""What torch calls the same setting in its functions without a module."""


def dropout(
    context: LayerContext, inputs: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero a share `p` of the values and scale up the rest, by a mask that follows from the step's seed alone."""
    if not training or p == 0:
        return inputs
    return torch.where(_kept(context, inputs, p), inputs / (1 - p), 0.0) if p < 1 else torch.zeros_like(inputs)


def channel_dropout(
    context: LayerContext, inputs: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """As `dropout`, but whole channels of f32[B, C, ...] at a time: Tompson et al. 2015."""
    if not training or p == 0:
        return inputs
    if p == 1:
        return torch.zeros_like(inputs)
    kept = _kept(context, _channels(inputs), p)
    return torch.where(kept.reshape(*kept.shape, *[1] * (inputs.dim() - 2)), inputs / (1 - p), 0.0)


def alpha_dropout(
    context: LayerContext, inputs: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean and variance behind SELU: Klambauer et al. 2017."""
    return _alpha_dropped(inputs, _kept(context, inputs, p), p) if training and p else inputs


def feature_alpha_dropout(
    context: LayerContext, inputs: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """The same for whole channels of f32[B, C, ...]."""
    if not training or not p:
        return inputs
    kept = _kept(context, _channels(inputs), p)
    return _alpha_dropped(inputs, kept.reshape(*kept.shape, *[1] * (inputs.dim() - 2)), p)


def rrelu(  # noqa: PLR0917 - the signature of what it replaces
    context: LayerContext,
    inputs: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Leaky ReLU whose slope is drawn for each value; its mean where not training: Xu et al. 2015."""
    slope = lower + (upper - lower) * uniform(context, inputs.shape) if training else (lower + upper) / 2
    return torch.where(inputs >= 0, inputs, inputs * slope)


def gumbel_softmax(  # noqa: PLR0917 - the signature of what it replaces
    context: LayerContext, logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A softmax of the logits with Gumbel noise, straight through where `hard`: Jang et al. 2017."""
    noise = -torch.log(-torch.log(uniform(context, logits.shape)))
    soft = torch.softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    places = torch.arange(logits.shape[dim]).reshape([-1] + [1] * ((-dim if dim < 0 else logits.dim() - dim) - 1))
    one_hot = (places == soft.argmax(dim, keepdim=True)).to(soft.dtype)
    return one_hot - soft.detach() + soft


def bernoulli(context: LayerContext, inputs: Tensor, p: float | None = None) -> Tensor:
    """1 with the probability that `inputs` gives, or `p`; else 0. No gradient goes through it."""
    chances = inputs.detach() if p is None else torch.full_like(inputs, p)
    return (uniform(context, inputs.shape) < chances).to(inputs.dtype)


def _bernoulli_in_place(context: LayerContext, target: Tensor, p: float | Tensor = 0.5) -> Tensor:
    return target.copy_((uniform(context, target.shape) < p).to(target.dtype))


def _uniform_in_place(context: LayerContext, target: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return target.copy_(low + (high - low) * uniform(context, target.shape))


def _normal_in_place(context: LayerContext, target: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return target.copy_(mean + std * normal(context, target.shape))


def _exponential_in_place(context: LayerContext, target: Tensor, lambd: float = 1.0) -> Tensor:
    return target.copy_(-torch.log(uniform(context, target.shape)) / lambd)


def _rand(
    context: LayerContext, *sizes: int | Sequence[int], size: Sequence[int] = (), dtype: torch.dtype | None = None
) -> Tensor:
    return uniform(context, size or _sizes(sizes)).to(dtype or torch.float32)


def _randn(
    context: LayerContext, *sizes: int | Sequence[int], size: Sequence[int] = (), dtype: torch.dtype | None = None
) -> Tensor:
    return normal(context, size or _sizes(sizes)).to(dtype or torch.float32)


def _rand_like(context: LayerContext, inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return uniform(context, inputs.shape).to(dtype or inputs.dtype)


def _randn_like(context: LayerContext, inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return normal(context, inputs.shape).to(dtype or inputs.dtype)


def _randint(
    context: LayerContext, *bounds_and_size: Any, low: int = 0, dtype: torch.dtype | None = None, **named: Any
) -> Tensor:
    *bounds, size = (*bounds_and_size, *(named[name] for name in ("high", "size") if name in named))
    low, high = bounds if len(bounds) > 1 else (low, bounds[0])
    return whole_numbers(context, low, high, size).to(dtype or torch.int64)


def _normal(context: LayerContext, mean: float | Tensor, std: float | Tensor = 1.0, size: Sequence[int] = ()) -> Tensor:
    if isinstance(mean, Tensor) or isinstance(std, Tensor):
        size = (torch.as_tensor(mean) + torch.as_tensor(std)).shape
    return torch.as_tensor(mean) + std * normal(context, size)


def _kept(context: LayerContext, inputs: Tensor, p: float) -> Tensor:
    """Where a value survives, with a probability of `1 - p`."""
    return random_words(context, inputs) >= int(p * MODULUS)


def _channels(inputs: Tensor) -> Tensor:
    """One value for each channel of f32[B, C, ...]."""
    return inputs.flatten(2)[..., 0] if inputs.dim() > 2 else inputs


def _alpha_dropped(inputs: Tensor, kept: Tensor, p: float) -> Tensor:
    scale = 1 / math.sqrt((SELU_FLOOR * SELU_FLOOR * p + 1) * (1 - p)) if p < 1 else 0.0
    return torch.where(kept, inputs, -SELU_FLOOR) * scale + SELU_FLOOR * scale * p


def _sizes(sizes: tuple[int | Sequence[int], ...]) -> Sequence[int]:
    """The sizes of `rand(2, 3)`, and those of `rand((2, 3))`."""
    if len(sizes) == 1 and isinstance(sizes[0], Sequence):
        return sizes[0]
    return [size for size in sizes if not isinstance(size, Sequence)]


DRAWS: dict[Callable[..., object], Draw] = {
    functional.dropout: dropout,
    functional.dropout1d: channel_dropout,
    functional.dropout2d: channel_dropout,
    functional.dropout3d: channel_dropout,
    functional.alpha_dropout: alpha_dropout,
    functional.feature_alpha_dropout: feature_alpha_dropout,
    functional.rrelu: rrelu,
    functional.gumbel_softmax: gumbel_softmax,
    torch.dropout: dropout,
    torch.feature_dropout: channel_dropout,
    torch.alpha_dropout: alpha_dropout,
    torch.feature_alpha_dropout: feature_alpha_dropout,
    torch.rrelu: rrelu,
    torch.rand: _rand,
    torch.randn: _randn,
    torch.rand_like: _rand_like,
    torch.randn_like: _randn_like,
    torch.randint: _randint,
    torch.normal: _normal,
    torch.bernoulli: bernoulli,
    Tensor.bernoulli: bernoulli,
    Tensor.bernoulli_: _bernoulli_in_place,
    Tensor.uniform_: _uniform_in_place,
    Tensor.normal_: _normal_in_place,
    Tensor.exponential_: _exponential_in_place,
}
REFUSED: frozenset[Callable[..., object]] = frozenset(
    {
        torch.randperm,
        torch.randint_like,
        torch.multinomial,
        torch.poisson,
        torch.binomial,
        Tensor.multinomial,
        Tensor.random_,
        Tensor.cauchy_,
        Tensor.geometric_,
        Tensor.log_normal_,
        functional.fractional_max_pool2d_with_indices,
        functional.fractional_max_pool3d_with_indices,
    }
)
