"""`nn.EmbeddingBag` on rows of equal length, as a lookup and a sum, mean or maximum over each row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.export.layers.layer_context import UnexportableError

Pool = Callable[[Tensor, Tensor], Tensor]
"""From what was looked up, f32[B, L, D], and which of it counts, bool[B, L, 1], to f32[B, D]."""


def embedding_bag(
    _context: object,
    _name: str,
    part: nn.EmbeddingBag,
    inputs: Tensor,
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """`nn.EmbeddingBag.forward` for i64[B, L]. Entries equal to `padding_idx` don't count.

    Raises:
        UnexportableError: bags of different lengths, or an option that changes weights or gradients by other rows.
    """
    if offsets is not None or inputs.dim() != 2:
        raise UnexportableError(
            "bags given by offsets have lengths that a graph doesn't know",
            "give one row of ids per sample, filled up with padding_idx",
        )
    if part.max_norm is not None or part.scale_grad_by_freq:
        option = "max_norm" if part.max_norm is not None else "scale_grad_by_freq"
        raise UnexportableError(f"{option} reads or changes weights outside of the graph", f"leave {option} out")
    values = functional.embedding(inputs, part.weight, part.padding_idx)
    counts = torch.ones_like(inputs) > 0 if part.padding_idx is None else inputs != part.padding_idx
    if per_sample_weights is not None:
        values = values * per_sample_weights.unsqueeze(-1)
    return POOLS[part.mode](values, counts.unsqueeze(-1))


def _sum(values: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts, values, 0.0).sum(1)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return _sum(values, counts) / counts.to(values.dtype).sum(1).clamp(min=1)


def _maximum(values: Tensor, counts: Tensor) -> Tensor:
    """A bag of padding alone gives 0, as in torch."""
    most = torch.where(counts, values, float("-inf")).amax(1)
    return torch.where(counts.any(1), most, 0.0)


POOLS: dict[str, Pool] = {"sum": _sum, "mean": _mean, "max": _maximum}
