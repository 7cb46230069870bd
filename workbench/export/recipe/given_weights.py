"""Weights to begin with, out of a file, in place of those that `build()` draws."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError, why_unreadable
from workbench.export.recipe.trainable import nearest_names

EXPORTED = "what `broker-coordinator tasks export` wrote"


def take_weights(module: nn.Module, path: Path) -> None:
    """Give the module the tensors of a safetensors file, by the names that torch has for them. It may hold some of them
    alone: what a task trains, as `broker-coordinator tasks export` writes it.

    Raises:
        ConfigurationError: it is no such file, or of another model.
    """
    known = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    tensors = _read(path)
    for name, value in tensors.items():
        _check_fits(name, value, known, path)
    with torch.no_grad():
        for name, value in tensors.items():
            known[name].copy_(value)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, f'name {EXPORTED}')}") from error
    except SafetensorError as error:
        raise ConfigurationError(f"{path}: not a safetensors file ({error}); name {EXPORTED}") from error


def _check_fits(name: str, value: Tensor, known: Mapping[str, Tensor], path: Path) -> None:
    if name not in known:
        raise ConfigurationError(
            f"{path}: the model has no tensor {name!r}; {nearest_names(name, list(known))}; of a bundle with"
            " [compression], name what `edgeflock merge` makes of it"
        )
    if value.shape != known[name].shape or value.dtype != known[name].dtype:
        raise ConfigurationError(
            f"{path}: {name!r} is {value.dtype} {list(value.shape)}, and {known[name].dtype}"
            f" {list(known[name].shape)} in the model; name weights of this recipe"
        )
    if not torch.isfinite(value).all():
        raise ConfigurationError(f"{path}: {name!r} contains NaN or infinity; name an earlier version of the weights")
