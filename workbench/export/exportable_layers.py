"""Layers whose own `forward` can't become a graph, in a form that can: they keep their parameters and their results.

Batch normalisation changes its buffers in place, dropout draws from torch's generator, recurrent layers and attention
end in fused kernels without an ONNX counterpart. Inside a block of `exportable_layers` they run the functions of this
module.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as DropoutLayer

from workbench.export.recurrent_layers import gru, lstm, rnn

SPREAD = 0x45D9F3B
"""The counter-based generator's multiplier, odd."""
FOLD = 1 << 16
"""2 to the power of half a word."""
MODULUS = 1 << 32
"""2 to the power of a word."""
MIXING_ROUNDS = 2
_MATRIX_LINEAR = functional.linear


@dataclass(slots=True)
class LayerContext:
    """What a layer may read of the step that it runs in, and what it changes.

    `row_weights` f32[B] is 0 on padding and adds up to 1 otherwise; `seed` i64[], modulo 2**32, is another one in every
    step; `row`
    i64[] is the row's number where each is differentiated by itself; `updated` maps buffers to their new values.
    """

    row_weights: Tensor | None = None
    seed: Tensor | None = None
    row: Tensor | None = None
    updated: dict[str, Tensor] = field(default_factory=dict)
    draws: int = 0


@contextmanager
def exportable_layers(module: nn.Module, context: LayerContext) -> Iterator[None]:
    """Let `module` run on the layers of this file. When the block ends it is as before."""
    replaced = []
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            mock.patch.object(functional, "dropout", partial(dropout, context)),
            mock.patch.object(functional, "dropout1d", partial(channel_dropout, context)),
            mock.patch.object(functional, "dropout2d", partial(channel_dropout, context)),
            mock.patch.object(functional, "linear", linear),
            mock.patch.object(functional, "scaled_dot_product_attention", partial(attention, context)),
        ):
            for name, part in module.named_modules():
                for kind, forward in LAYERS.items():
                    if isinstance(part, kind):
                        part.__dict__["forward"] = partial(forward, context, name, part)
                        replaced.append(part)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for part in replaced:
            part.__dict__.pop("forward", None)


def changing_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Name to value of the buffers that training changes: the running statistics of batch normalisation."""
    return {
        f"{name}.{buffer}" if name else buffer: getattr(part, buffer)
        for name, part in module.named_modules()
        if isinstance(part, BatchNorm) and part.running_mean is not None
        for buffer in ("running_mean", "running_var")
    }


def has_dropout(module: nn.Module) -> bool:
    """Whether any layer draws a mask in training. Recurrent and attention layers keep their rate in `dropout`."""
    rates = [part.p if isinstance(part, DropoutLayer) else getattr(part, "dropout", 0) for part in module.modules()]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def batch_norm(context: LayerContext, name: str, part: BatchNorm, inputs: Tensor) -> Tensor:
    """Batch normalisation with the statistics of the real rows (training), or the running ones.

    Raises:
        NotImplementedError: an average over all batches (`momentum=None`), or statistics of a single row.
    """
    mean, variance = part.running_mean, part.running_var
    if part.training or mean is None or variance is None:
        if context.row_weights is None:
            raise NotImplementedError(
                "batch statistics mix the samples whose gradients are wanted one by one;"
                ' use GroupNorm, or batch_norm = "frozen" in task.toml'
            )
        if part.momentum is None:
            raise NotImplementedError(
                "momentum=None averages over all batches ever seen, which a round doesn't know; give it a momentum"
            )
        mean, variance = _statistics(inputs, context.row_weights)
        _update_running(context, name, part, inputs, (mean.detach(), variance.detach()))
    scale = torch.rsqrt(variance.clamp(min=0) + part.eps)
    if part.weight is not None:
        scale = scale * part.weight
    shift = -mean * scale if part.bias is None else part.bias - mean * scale
    return inputs * _per_channel(scale, inputs) + _per_channel(shift, inputs)


def dropout(
    context: LayerContext, inputs: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero a share `p` of the values and scale up the rest, by a mask that follows from the step's seed alone."""
    if not training or p == 0:
        return inputs
    numbers = random_words(context, inputs)
    context.draws += 1
    kept = (numbers >= int(p * MODULUS)).to(inputs.dtype)
    return inputs * kept / (1 - p)


def channel_dropout(
    context: LayerContext, inputs: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """As `dropout`, but whole channels of f32[B, C, ...] at a time: Tompson et al. 2015."""
    if not training or p == 0:
        return inputs
    kept = dropout(context, torch.ones_like(inputs.flatten(2)[..., 0]), p)
    return inputs * kept.reshape(*kept.shape, *[1] * (inputs.dim() - 2))


def random_words(context: LayerContext, like: Tensor) -> Tensor:
    """i64 in the shape of `like`, from 0 to `MODULUS - 1`: a hash of seed, draw, row and place.

    Integer arithmetic that stays below 2**63, because ONNX's own random operators take no seed at run time.
    """
    if context.seed is None:
        raise NotImplementedError("dropout as a function draws without being seen; use nn.Dropout instead")
    row_size = like[0].numel()
    rows = torch.arange(like.shape[0]) if context.row is None else context.row.unsqueeze(0)
    words = torch.zeros((), dtype=torch.int64)
    for part in (context.seed, context.draws, rows.unsqueeze(1), torch.arange(row_size).unsqueeze(0)):
        words = (words + part) % MODULUS
        for _ in range(MIXING_ROUNDS):
            upper = torch.div(words - words % FOLD, FOLD, rounding_mode="trunc")  # exact in float32, as ONNX divides
            words = torch.bitwise_xor(words, upper) * SPREAD % MODULUS
    return words.reshape(like.shape)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer as one matrix product. torch's own way over more than two axes fixes the size of the batch."""
    if inputs.dim() <= 2:
        return _MATRIX_LINEAR(inputs, weight, bias)
    rows = _MATRIX_LINEAR(inputs.reshape(-1, inputs.shape[-1]), weight, bias)
    return rows.reshape(*inputs.shape[:-1], weight.shape[0])


def attention(  # noqa: PLR0917 - the signature of what it replaces
    context: LayerContext,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention: Vaswani et al. 2017, equation 1. A mask is added, or says where to look."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = torch.where(attn_mask, scores, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(context, torch.softmax(scores, dim=-1), dropout_p) @ value


def _statistics(inputs: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance f32[C] over the real rows and all places of f32[B, C, ...]."""
    weights = row_weights.unsqueeze(0)
    mean = (weights @ _row_means(inputs)).squeeze(0)
    centred = inputs - _per_channel(mean, inputs)
    return mean, (weights @ _row_means(centred * centred)).squeeze(0)


def _update_running(
    context: LayerContext, name: str, part: BatchNorm, inputs: Tensor, statistics: tuple[Tensor, Tensor]
) -> None:
    """Move the running statistics by `momentum` towards the batch's, the variance as the unbiased one."""
    if part.running_mean is None or part.running_var is None or part.momentum is None or context.row_weights is None:
        return
    mean, variance = statistics
    weights = context.row_weights
    places = inputs[0, 0].numel() if inputs.dim() > 2 else 1
    count = places / weights.max().clamp(min=torch.finfo(weights.dtype).tiny)
    unbiased = variance * (count / (count - 1).clamp(min=1))
    rate = part.momentum * weights.sum()
    prefix = f"{name}." if name else ""
    context.updated[f"{prefix}running_mean"] = part.running_mean + rate * (mean - part.running_mean)
    context.updated[f"{prefix}running_var"] = part.running_var + rate * (unbiased - part.running_var)


def _row_means(inputs: Tensor) -> Tensor:
    return inputs.mean(dim=tuple(range(2, inputs.dim()))) if inputs.dim() > 2 else inputs


def _per_channel(values: Tensor, inputs: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (inputs.dim() - 2))


LAYERS: dict[type[nn.Module], Callable[..., object]] = {
    BatchNorm: batch_norm,
    nn.GRU: gru,
    nn.LSTM: lstm,
    nn.RNN: rnn,
}
