"""The losses that a recipe may name, each as one number per row.

A loss returns rows, not a mean: the mask, the mean and per-sample gradients are then the same for every loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fleet_protocol.bundle import LabelKind
from workbench.export.task_file import LossName, LossSettings

BALANCE = 0.5
"""0 is plain cross entropy, 1 makes up for the frequencies in full. Half did best on unevenly spread digits."""


RowLoss = Callable[[Tensor, Tensor, LossSettings], Tensor]


def cross_entropy(scores: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """Cross entropy of logits f32[B, C] against class indices i64[B], as f32[B].

    One-hot times log-softmax: `nll_loss` becomes Scatter and Gather, 34 us a step instead of 23 in a small MLP. Class
    weights scale rows; their mean is over the number of rows, not over the sum of the weights.
    """
    classes = scores.shape[1]
    smoothing = settings.label_smoothing
    target = (labels.unsqueeze(1) == torch.arange(classes)).to(scores.dtype)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / classes
    if settings.class_weights:
        target = target * torch.tensor(settings.class_weights)
    return -(target * torch.log_softmax(scores, dim=1)).sum(dim=1)


def binary_cross_entropy(scores: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """Cross entropy of each logit f32[B, C] against its own 0 or 1 f32[B, C], their mean over the classes as f32[B]."""
    entropies = functional.relu(scores) - scores * labels + torch.log(1 + torch.exp(-scores.abs()))
    if settings.class_weights:
        entropies = entropies * torch.tensor(settings.class_weights)
    return entropies.mean(dim=1)


def mean_squared_error(outputs: Tensor, targets: Tensor, _settings: LossSettings) -> Tensor:
    """Mean over the values of one row of the squared difference, f32[B, ...] to f32[B]."""
    difference = (outputs - targets).flatten(1)
    return (difference * difference).mean(dim=1)


def huber(outputs: Tensor, targets: Tensor, settings: LossSettings) -> Tensor:
    """Mean over the values of one row of Huber's loss (1964): quadratic up to `huber_delta`, linear beyond."""
    distance = (outputs - targets).flatten(1).abs()
    quadratic = distance.clamp(max=settings.huber_delta)
    return (quadratic * (distance - 0.5 * quadratic)).mean(dim=1)


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as a recipe names it, and the kinds of label that it is for.

    With `balances_classes`, training adds `BALANCE` times the log of the device's own class frequencies to the scores
    (logit adjustment: Menon et al. 2021, equation 10, where it is tau). A device that has never seen a class then
    does not teach the fleet that the class does not exist. Evaluation and prediction use the scores as they are.
    """

    rows: RowLoss
    label_kinds: tuple[LabelKind, ...]
    balances_classes: bool = False


LOSSES: dict[LossName, Loss] = {
    "cross_entropy": Loss(cross_entropy, ("class",)),
    "balanced_cross_entropy": Loss(cross_entropy, ("class",), balances_classes=True),
    "binary_cross_entropy": Loss(binary_cross_entropy, ("multi_label",)),
    "mean_squared_error": Loss(mean_squared_error, ("regression", "reconstruction")),
    "huber": Loss(huber, ("regression", "reconstruction")),
}
