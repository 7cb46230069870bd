"""Normalisation whose layers change buffers in training: batch and instance normalisation, spectral normalisation.

torch changes them in place. Here the step hands the new values on, and padding has no part in them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as TrackingNorm
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm as SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

from workbench.export.layers.batch_statistics import normalised_by_batch, per_channel
from workbench.export.layers.layer_context import LayerContext, UnexportableError
from workbench.export.layers.moving_buffers import RUNNING_STATISTICS, SINGULAR_VECTORS

Pair = tuple[Tensor, Tensor]


def batch_norm(context: LayerContext, name: str, part: BatchNorm, inputs: Tensor) -> Tensor:
    """Batch normalisation with the statistics of the real rows (training), or the running ones.

    Raises:
        UnexportableError: an average over all batches (`momentum=None`), statistics of a single row, or none to predict
            with.
    """
    mean, variance = part.running_mean, part.running_var
    if mean is None and not part.training:
        raise UnexportableError(
            "without running statistics a prediction depends on the samples beside it", "leave out track_running_stats"
        )
    if part.training or mean is None or variance is None:
        rows = context.rows_of("statistics of a batch mix its samples", 'use GroupNorm, or batch_norm = "frozen"')
        if part.momentum is None:
            raise UnexportableError(
                "momentum=None averages over all batches ever seen, which a round doesn't know", "give it a momentum"
            )
        outputs, mean, variance = normalised_by_batch(inputs, rows, part.weight, part.bias, part.eps)
        places = inputs[0, 0].numel() if inputs.dim() > 2 else 1
        count = places / rows.max().clamp(min=torch.finfo(rows.dtype).tiny)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        _move(context, name, part, (mean.detach(), unbiased.detach()), part.momentum * rows.sum())
        return outputs
    return _normalised(inputs, mean, variance, part)


def instance_norm(context: LayerContext, name: str, part: InstanceNorm, inputs: Tensor) -> Tensor:
    """Instance normalisation: by each sample's own statistics (training, or none are tracked), or the running ones.

    The running ones move towards the mean over the real rows of the samples' means and unbiased variances.

    Raises:
        UnexportableError: statistics are tracked where each sample is differentiated by itself.
    """
    if part.running_mean is None or part.running_var is None:
        return type(part).forward(part, inputs)
    if not part.training:
        return _normalised(inputs, part.running_mean, part.running_var, part)
    rows = context.rows_of("running statistics follow all samples of a batch", "use track_running_stats=False")
    places = tuple(range(2, inputs.dim()))
    values = inputs.detach()
    unbiased = ((values - values.mean(places, keepdim=True)) ** 2).sum(places) / (values[0, 0].numel() - 1)
    moments = rows @ values.mean(places), rows @ unbiased
    _move(context, name, part, moments, (part.momentum or 0.0) * rows.sum())
    return functional.instance_norm(inputs, None, None, part.weight, part.bias, True, 0.0, part.eps)


def spectral_norm(context: LayerContext, name: str, part: SpectralNorm, weight: Tensor) -> Tensor:
    """`torch.nn.utils.parametrizations.spectral_norm`: the weight over its largest singular value (Miyato et al. 2018).

    Raises:
        UnexportableError: each sample is differentiated by itself.
    """
    if weight.dim() == 1:
        return functional.normalize(weight, dim=0, eps=part.eps)
    matrix = part._reshape_weight_to_matrix(weight)
    left, right = (context.buffer(name, vector, getattr(part, vector)) for vector in SINGULAR_VECTORS)
    for _ in range(part.n_power_iterations if part.training else 0):
        left = _unit(matrix.detach() @ right, part.eps)
        right = _unit(matrix.detach().T @ left, part.eps)
    if part.training:
        _move_vectors(context, name, dict(zip(SINGULAR_VECTORS, (left, right), strict=True)), part)
    return _spectrally_divided(weight, matrix, left, right)


def hooked_spectral_norm(context: LayerContext, name: str, part: nn.Module, hook: SpectralNormHook) -> Tensor:
    """The same for `torch.nn.utils.spectral_norm`, which computes the weight in a hook before the layer runs.

    Raises:
        UnexportableError: each sample is differentiated by itself.
    """
    weight = getattr(part, f"{hook.name}_orig")
    matrix = hook.reshape_weight_to_matrix(weight)
    vectors = (f"{hook.name}_u", f"{hook.name}_v")
    left, right = (context.buffer(name, vector, getattr(part, vector)) for vector in vectors)
    for _ in range(hook.n_power_iterations if part.training else 0):
        right = _unit(matrix.detach().T @ left, hook.eps)
        left = _unit(matrix.detach() @ right, hook.eps)
    if part.training:
        _move_vectors(context, name, dict(zip(vectors, (left, right), strict=True)), part)
    return _spectrally_divided(weight, matrix, left, right)


def _spectrally_divided(weight: Tensor, matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The weight over `left @ matrix @ right`; both are made unit vectors, which a mean over devices is not."""
    left, right = _unit(left), _unit(right)
    return weight / (left * (matrix @ right)).sum()


def _unit(vector: Tensor, eps: float = 1e-12) -> Tensor:
    return functional.normalize(vector, dim=0, eps=eps)


def _move_vectors(context: LayerContext, name: str, vectors: dict[str, Tensor], part: nn.Module) -> None:
    """Hand on the vectors, unless all rows are padding."""
    rows = context.rows_of("its vectors move once a step", "use torch.nn.utils.parametrizations.weight_norm")
    for vector, value in vectors.items():
        before = context.buffer(name, vector, getattr(part, vector))
        context.update(name, vector, torch.where(rows.sum() > 0, value, before))


def _move(context: LayerContext, name: str, part: TrackingNorm, statistics: Pair, rate: Tensor) -> None:
    """Move the running statistics, if there are any, by `rate` f32[] towards those of a batch, f32[C] each."""
    for buffer, value in zip(RUNNING_STATISTICS, statistics, strict=True):
        if getattr(part, buffer) is not None:
            running = context.buffer(name, buffer, getattr(part, buffer))
            context.update(name, buffer, running + rate * (value - running))


def _normalised(inputs: Tensor, mean: Tensor, variance: Tensor, part: TrackingNorm) -> Tensor:
    """f32[B, C, ...] normalised by these statistics f32[C], then scaled and shifted as the layer learned."""
    scale = torch.rsqrt(variance.clamp(min=0) + part.eps)
    if part.weight is not None:
        scale = scale * part.weight
    shift = -mean * scale if part.bias is None else part.bias - mean * scale
    return inputs * per_channel(scale, inputs) + per_channel(shift, inputs)
