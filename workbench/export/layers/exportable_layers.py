"""Layers whose own `forward` can't become a graph, in a form that can: they keep their parameters and their results.

Some normalisation changes its buffers in place, dropout draws from torch's generator, recurrent layers and attention
end in fused kernels without an ONNX counterpart. Inside a block of `exportable_layers` they run the functions of this
module, or of the modules that `LAYERS` names.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm as SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

from workbench.export.layers.embedding_bags import embedding_bag
from workbench.export.layers.exportable_functions import ExportableFunctions
from workbench.export.layers.layer_context import LayerContext, UnexportableError
from workbench.export.layers.moving_buffers import RUNNING_STATISTICS
from workbench.export.layers.normalisation_layers import batch_norm, hooked_spectral_norm, instance_norm, spectral_norm
from workbench.export.layers.padding_modes import pad
from workbench.export.layers.recurrent_layers import gru, lstm, rnn
from workbench.export.layers.seeded_noise import SeededNoise, dropout

_MATRIX_LINEAR = functional.linear
_ATTENTION = functional.scaled_dot_product_attention


_AS_TORCH: ContextVar[bool] = ContextVar("as_torch", default=False)


@contextmanager
def torchs_own_layers() -> Iterator[None]:
    """Inside of the block, `exportable_layers` leaves torch's layers as they are, but for what they draw and remember.

    That is what an export is compared with.
    """
    token = _AS_TORCH.set(True)
    try:
        yield
    finally:
        _AS_TORCH.reset(token)


@contextmanager
def exportable_layers(module: nn.Module, context: LayerContext) -> Iterator[None]:
    """Let `module` run on the layers of this file. When the block ends it is as before.

    Raises:
        UnexportableError: the block has given a buffer another tensor, which no step hands on to the next.
    """
    replaced = []
    buffers = dict(module.named_buffers())
    names = {part: name for name, part in module.named_modules()}
    layers = LAYERS | TORCHS_OWN if _AS_TORCH.get() else LAYERS
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as patches:
            patches.enter_context(SeededNoise(context))
            if not _AS_TORCH.get():
                patches.enter_context(ExportableFunctions())
            for target, name, function in _replaced_functions(context, names):
                patches.enter_context(mock.patch.object(target, name, function))
            for part, name in names.items():
                for kind, forward in layers.items():
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


def _replaced_functions(context: LayerContext, names: dict[nn.Module, str]) -> list[tuple[object, str, object]]:
    """Where functions stand, their names there, and what runs instead."""
    functions = [
        (torch.distributions.Distribution, "_validate_args", False),
        (functional, "dropout", partial(dropout, context)),
        (functional, "scaled_dot_product_attention", partial(attention, context)),
        (
            SpectralNormHook,
            "compute_weight",
            lambda hook, part, **_: hooked_spectral_norm(context, names[part], part, hook),
        ),
    ]
    if not _AS_TORCH.get():
        functions += [
            (functional, "adaptive_avg_pool2d", partial(pooled, functional.adaptive_avg_pool2d)),
            (functional, "linear", linear),
            (torch._C._nn, "pad", partial(pad, torch._C._nn.pad)),
        ]
    return functions


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
    if _AS_TORCH.get() and not dropout_p:
        return _ATTENTION(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
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


def _torchs_batch_norm(context: LayerContext, name: str, part: BatchNorm, inputs: Tensor) -> Tensor:
    """What torch computes, with the running statistics handed on instead of changed."""
    mean, variance = part.running_mean, part.running_var
    if not part.training and mean is not None:
        return functional.batch_norm(inputs, mean, variance, part.weight, part.bias, False, 0.0, part.eps)
    if mean is not None and variance is not None:
        moved = [context.buffer(name, each, getattr(part, each)).clone() for each in RUNNING_STATISTICS]
        functional.batch_norm(
            inputs.detach(), moved[0], moved[1], training=True, momentum=part.momentum or 0.0, eps=part.eps
        )
        for each, value in zip(RUNNING_STATISTICS, moved, strict=True):
            context.update(name, each, value)
    return functional.batch_norm(inputs, None, None, part.weight, part.bias, True, 0.0, part.eps)


def _torchs_recurrence(context: LayerContext, name: str, part: nn.RNNBase, *arguments: object) -> object:
    """torch's own, but where it would draw masks between its layers."""
    if part.dropout and part.training:
        return LAYERS[type(part)](context, name, part, *arguments)
    return type(part).forward(part, *arguments)


TORCHS_OWN: dict[type[nn.Module], Callable[..., object]] = {
    BatchNorm: _torchs_batch_norm,
    nn.GRU: _torchs_recurrence,
    nn.LSTM: _torchs_recurrence,
    nn.RNN: _torchs_recurrence,
}
