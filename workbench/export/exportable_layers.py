"""Layers whose own `forward` can't become a graph, in a form that can: they keep their parameters and their results.

Some normalisation changes its buffers in place, dropout draws from torch's generator, recurrent layers and attention
end in fused kernels without an ONNX counterpart. Inside a block of `exportable_layers` they run the functions of this
module, or of the modules that `LAYERS` names.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as DropoutLayer
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm as SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

from workbench.export.embedding_bags import embedding_bag
from workbench.export.layer_context import LayerContext, UnexportableError
from workbench.export.normalisation_layers import batch_norm, hooked_spectral_norm, instance_norm, spectral_norm
from workbench.export.padding_modes import pad
from workbench.export.recurrent_layers import gru, lstm, rnn

SPREAD = 0x45D9F3B
"""The counter-based generator's multiplier, odd."""
FOLD = 1 << 16
"""2 to the power of half a word."""
MODULUS = 1 << 32
"""2 to the power of a word."""
MIXING_ROUNDS = 2
_MATRIX_LINEAR = functional.linear


@contextmanager
def exportable_layers(module: nn.Module, context: LayerContext) -> Iterator[None]:
    """Let `module` run on the layers of this file. When the block ends it is as before.

    Raises:
        UnexportableError: the block has given a buffer another tensor, which no step hands on to the next.
    """
    replaced = []
    buffers = dict(module.named_buffers())
    names = {part: name for name, part in module.named_modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            mock.patch.object(functional, "dropout", partial(dropout, context)),
            mock.patch.object(functional, "dropout1d", partial(channel_dropout, context)),
            mock.patch.object(functional, "dropout2d", partial(channel_dropout, context)),
            mock.patch.object(functional, "linear", linear),
            mock.patch.object(functional, "adaptive_avg_pool2d", partial(pooled, functional.adaptive_avg_pool2d)),
            mock.patch.object(functional, "scaled_dot_product_attention", partial(attention, context)),
            mock.patch.object(torch._C._nn, "pad", partial(pad, torch._C._nn.pad)),
            mock.patch.object(
                SpectralNormHook,
                "compute_weight",
                lambda hook, part, **_: hooked_spectral_norm(context, names[part], part, hook),
            ),
        ):
            for part, name in names.items():
                for kind, forward in LAYERS.items():
                    if isinstance(part, kind):
                        part.__dict__["forward"] = partial(forward, context, name, part)
                        replaced.append(part)
            yield
        _check_buffers(module, buffers)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for part in replaced:
            part.__dict__.pop("forward", None)


def _check_buffers(module: nn.Module, before: dict[str, Tensor]) -> None:
    """Put back each buffer that was given another tensor, and complain of the first."""
    changed = [name for name, value in module.named_buffers() if value is not before.get(name)]
    for name in changed:
        layer, _, last = name.rpartition(".")
        setattr(module.get_submodule(layer), last, before.get(name))
    if changed:
        raise UnexportableError(
            f"forward() gives the buffer {changed[0]!r} a new value, which no step hands on to the next",
            "compute it anew from the inputs, or let nn.BatchNorm1d with affine=False track it",
            changed[0].rpartition(".")[0],
        )


def has_dropout(module: nn.Module) -> bool:
    """Whether any layer draws a mask in training. Recurrent and attention layers keep their rate in `dropout`."""
    rates = [part.p if isinstance(part, DropoutLayer) else getattr(part, "dropout", 0) for part in module.modules()]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


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
        raise UnexportableError("dropout as a function draws without being seen", "use nn.Dropout")
    row_size = like[0].numel()
    rows = torch.arange(like.shape[0]) if context.row is None else context.row.unsqueeze(0)
    words = torch.zeros((), dtype=torch.int64)
    for part in (context.seed, context.draws, rows.unsqueeze(1), torch.arange(row_size).unsqueeze(0)):
        words = (words + part) % MODULUS
        for _ in range(MIXING_ROUNDS):
            upper = torch.div(words - words % FOLD, FOLD, rounding_mode="trunc")  # exact in float32, as ONNX divides
            words = torch.bitwise_xor(words, upper) * SPREAD % MODULUS
    return words.reshape(like.shape)


def pooled(pool: Callable[..., Tensor], inputs: Tensor, output_size: int | tuple[int | None, ...] | None) -> Tensor:
    """Adaptive average pooling, to one value as a plain mean: torch's own reads how the inputs lie in memory."""
    if output_size in (1, (1, 1), [1, 1]):
        return inputs.mean((-2, -1), keepdim=True)
    return pool(inputs, output_size)


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


LAYERS: dict[type[nn.Module], Callable[..., object]] = {
    BatchNorm: batch_norm,
    InstanceNorm: instance_norm,
    SpectralNorm: spectral_norm,
    nn.EmbeddingBag: embedding_bag,
    nn.GRU: gru,
    nn.LSTM: lstm,
    nn.RNN: rnn,
}
