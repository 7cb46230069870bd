"""Random numbers that follow from a step's seed alone: a counter-based generator in integer operators of ONNX."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.export.layers.layer_context import LayerContext, UnexportableError

SPREAD = 0x45D9F3B
"""The counter-based generator's multiplier, odd."""
FOLD = 1 << 16
"""2 to the power of half a word."""
MODULUS = 1 << 32
"""2 to the power of a word."""
MIXING_ROUNDS = 2
STEPS = 1 << 23
"""Of a uniform number: with the half that keeps it from 0 and 1, as many digits as float32 has."""


def random_words(context: LayerContext, like: Tensor) -> Tensor:
    """i64 in the shape of `like`, from 0 to `MODULUS - 1`: a hash of seed, draw, row and place.

    Integer arithmetic that stays below 2**63, because ONNX's own random operators take no seed at run time.

    Raises:
        UnexportableError: nothing may be drawn here, since what is computed is kept.
    """
    if context.seed is None:
        raise UnexportableError(
            "it draws random numbers where results are computed once and kept",
            "draw only where self.training, or name a backbone that draws none",
        )
    row_size = like[0].numel()
    alone = context.row is not None and like.shape[0] == 1
    rows = context.row.unsqueeze(0) if alone and context.row is not None else torch.arange(like.shape[0])
    words = torch.zeros((), dtype=torch.int64)
    for part in (context.seed, context.draws, rows.unsqueeze(1), torch.arange(row_size).unsqueeze(0)):
        words = (words + part) % MODULUS
        for _ in range(MIXING_ROUNDS):
            words = torch.bitwise_xor(words, _quotient(words, FOLD)) * SPREAD % MODULUS
    context.draws += 1
    return words.reshape(like.shape)


def _quotient(words: Tensor, divisor: int) -> Tensor:
    """Rounded down: one operator, as no word is negative."""
    return torch.div(words, divisor, rounding_mode="trunc")


def uniform(context: LayerContext, sizes: Sequence[int]) -> Tensor:
    """f32 [*sizes], evenly spread over the open interval from 0 to 1."""
    words = random_words(context, torch.ones(list(sizes) or [1])).reshape(list(sizes))
    return (_quotient(words, MODULUS // STEPS).to(torch.float32) + 0.5) * (1 / STEPS)


def normal(context: LayerContext, sizes: Sequence[int]) -> Tensor:
    """f32 [*sizes], normal with mean 0 and deviation 1: Box & Muller 1958."""
    radius = torch.sqrt(-2 * torch.log(uniform(context, sizes)))
    return radius * torch.cos(2 * torch.pi * uniform(context, sizes))


def whole_numbers(context: LayerContext, low: int, high: int, sizes: Sequence[int]) -> Tensor:
    """i64 [*sizes] from `low` to `high - 1`.

    Raises:
        UnexportableError: there are more of them than a uniform number has steps.
    """
    if high - low > STEPS:
        raise UnexportableError(f"it draws whole numbers from {low} to {high}", f"draw from at most {STEPS} numbers")
    return low + torch.floor(uniform(context, sizes) * (high - low)).to(torch.int64)
