"""Applying `[compression]` to the module that a recipe has built."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from fleet_protocol.errors import ConfigurationError
from workbench.export.recipe.compression.adapters import Adapter, adapter_size
from workbench.export.recipe.compression.factors import Factors, factor_size
from workbench.export.recipe.compression.matrices import Matrix, matrices
from workbench.export.recipe.compression.pruning import Kept, masks
from workbench.export.recipe.compression.settings import CompressionSettings
from workbench.export.recipe.model_checks import names_of_parameters
from workbench.export.recipe.trainable import is_selected, nearest_names


def compress(
    module: nn.Module, settings: CompressionSettings, trains: Callable[[str], bool], seed: int, path: Path
) -> None:
    """Put what trains and travels in place of the module's matrices; `trains` says which parameters would train.

    Raises:
        ConfigurationError: a table says what can't be, or saves nothing; `path` is task.toml.
    """
    chosen = _chosen(module, settings, trains, path)
    generator = torch.Generator().manual_seed(seed)
    if settings.adapters is not None:
        _check_rank(chosen["adapters"], settings.adapters.rank, adapter_size, "adapters", path)
        for matrix in chosen["adapters"].values():
            matrix.is_made_of(Adapter(matrix, settings.adapters, generator))
    if settings.factors is not None:
        _check_rank(chosen["factors"], settings.factors.rank, factor_size, "factors", path)
        for matrix in chosen["factors"].values():
            matrix.is_made_of(Factors(matrix, settings.factors, generator))
    if settings.pruning is not None:
        for name, mask in masks(chosen["pruning"], settings.pruning).items():
            matrix = chosen["pruning"][name]
            matrix.is_made_of(Kept(matrix, mask))


def _chosen(
    module: nn.Module, settings: CompressionSettings, trains: Callable[[str], bool], path: Path
) -> dict[str, dict[str, Matrix]]:
    """By table, the matrices that it names; each is in one table and under one name."""
    found = matrices(module, trains)
    aliases = {name: names for names in names_of_parameters(module).values() for name in names}
    tables: dict[str, tuple[str, ...]] = {
        table: getattr(settings, table).parameters
        for table in settings.__struct_fields__
        if getattr(settings, table) is not None
    }
    for table, patterns in tables.items():
        _check_fit(found, patterns, f"{path}: compression.{table}")
    for name in found:
        within = [table for table, patterns in tables.items() if is_selected(name, patterns)]
        if len(within) > 1:
            raise ConfigurationError(
                f"{path}: the parameter {name!r} is in {' and '.join(within)} of [compression]; let the patterns of one"
                " of them fit it"
            )
        if within and len(aliases[name]) > 1:
            raise ConfigurationError(
                f"{path}: compression.{within[0]}: {' and '.join(map(repr, aliases[name]))} are one tensor, and would"
                " be two; leave it out of `parameters`"
            )
    return {
        table: {name: each for name, each in found.items() if is_selected(name, patterns)}
        for table, patterns in tables.items()
    }


def _check_fit(found: Mapping[str, Matrix], patterns: Iterable[str], place: str) -> None:
    for pattern in patterns:
        if not any(is_selected(name, [pattern]) for name in found):
            raise ConfigurationError(
                f"{place}: the pattern {pattern!r} fits no matrix or kernel that trains; vectors, weights of recurrent"
                f" layers and what is parametrised already stay as they are; {nearest_names(pattern, list(found))}"
            )


def _check_rank(
    chosen: Mapping[str, Matrix], rank: int, size: Callable[[Matrix, int], int], table: str, path: Path
) -> None:
    for name, matrix in chosen.items():
        whole = matrix.value.numel()
        if (takes := size(matrix, rank)) < whole:
            continue
        most = max((each for each in range(1, rank) if size(matrix, each) < whole), default=0)
        remedy = f"lower the rank to {most}" if most else "leave it out of `parameters`"
        raise ConfigurationError(
            f"{path}: compression.{table}: with rank {rank} the parameter {name!r} {list(matrix.value.shape)} takes"
            f" {takes} numbers in place of {whole}; {remedy}"
        )
