"""The table `[compression]` of `task.toml`: what travels in place of a model's matrices (docs/model-compression.md)."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.configuration import PositiveFloat, PositiveInt

EVERY_MATRIX: Final = ("*",)

Patterns = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class AdapterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A matrix stays as it is, and a product of two thin ones, B times A, is added to it (LoRA, Hu et al. 2021)."""

    rank: PositiveInt
    """Columns of B and rows of A."""
    parameters: Patterns = EVERY_MATRIX
    """Patterns of names, as of `trainable`, of what gets an adapter; vectors, such as biases, train as ever."""
    alpha: PositiveFloat | None = None
    """The product counts alpha / rank times; left out, once."""


class FactorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A matrix is the entrywise product of two products of thin ones (FedPara, Hyeon-Woo et al. 2022)."""

    rank: PositiveInt
    """Columns of each thin matrix. The matrix may be of rank up to its square."""
    parameters: Patterns = EVERY_MATRIX
    """Patterns of names, as of `trainable`, of what is made of factors; vectors, such as biases, train as ever."""


class PruningSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entries of smallest magnitude are 0 for good, and the others alone train and travel."""

    keep: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    """Share of the entries that stay."""
    parameters: Patterns = EVERY_MATRIX
    """Patterns of names, as of `trainable`, of what is pruned; vectors, such as biases, train as ever."""
    scope: Literal["tensor", "model"] = "tensor"
    """Whose magnitudes are compared: within each tensor, or of all that are pruned."""


class CompressionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fewer numbers in place of a model's matrices and kernels: these train and travel (docs/model-compression.md)."""

    adapters: AdapterSettings | None = None
    factors: FactorSettings | None = None
    pruning: PruningSettings | None = None
