"""The losses that a recipe may name, each as one number per row.

A loss returns rows, not a mean: the mask, the mean and per-sample gradients are then the same for every loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor

RowLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits f32[B, C] against class indices i64[B], as f32[B].

    One-hot times log-softmax, because `nll_loss` becomes Scatter and Gather, which are slower (EVIDENCE.md).
    """
    one_hot = (labels.unsqueeze(1) == torch.arange(scores.shape[1])).to(scores.dtype)
    return -(one_hot * torch.log_softmax(scores, dim=1)).sum(dim=1)


LOSSES: dict[str, RowLoss] = {
    "cross_entropy": cross_entropy,
}
