"""The buffers that training changes, by kind of layer: they travel behind the weights and are carried between steps."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as TrackingNorm
from torch.nn.utils.parametrizations import _SpectralNorm as SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

RUNNING_STATISTICS = ("running_mean", "running_var")
SINGULAR_VECTORS = ("_u", "_v")
HOOKED_SINGULAR_VECTORS = ("weight_u", "weight_v")
GROUPS = (RUNNING_STATISTICS, SINGULAR_VECTORS, HOOKED_SINGULAR_VECTORS)
"""Names that belong together: a pattern of `trainable` that fits one of a layer's group selects all of it."""


def changing_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Name to value of each buffer that a step changes: running statistics, and vectors of spectral normalisation."""
    return {
        f"{layer}.{name}" if layer else name: getattr(part, name)
        for layer, part in module.named_modules()
        for name in _names(part)
    }


def parts_with_buffers(module: nn.Module) -> Iterator[tuple[nn.Module, list[str]]]:
    """Each submodule that has such buffers, and their full names."""
    for layer, part in module.named_modules():
        if names := _names(part):
            yield part, [f"{layer}.{name}" if layer else name for name in names]


def group_of(name: str) -> tuple[str, ...]:
    """The full names of the buffers that move together with this one; empty for a parameter."""
    layer, _, last = name.rpartition(".")
    group = next((group for group in GROUPS if last in group), ())
    return tuple(f"{layer}.{other}" if layer else other for other in group)


def _names(part: nn.Module) -> tuple[str, ...]:
    if isinstance(part, TrackingNorm):
        return RUNNING_STATISTICS if part.running_mean is not None else ()
    if isinstance(part, SpectralNorm):
        return SINGULAR_VECTORS if hasattr(part, "_u") else ()
    hooked = any(isinstance(hook, SpectralNormHook) for hook in part._forward_pre_hooks.values())
    return HOOKED_SINGULAR_VECTORS if hooked else ()
