"""The losses that a recipe may name, each as one number per row.

A loss returns rows, not a mean: the mask, the mean and per-sample gradients are then the same for every loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from fleet_protocol.sample_schema import LabelKind
from workbench.export.recipe.task_file import LossSettings, NamedLoss

RowLoss = Callable[[Tensor, Tensor, LossSettings], Tensor]


def cross_entropy(scores: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """Cross entropy of logits f32[B, C] against class indices i64[B], as f32[B].

    Of scores f32[B, C, ...], labels are i64[B, ...], and the mean over the positions is taken.

    A one-hot selection from the log-softmax: `nll_loss` becomes Scatter and Gather, 34 us a step instead of 23 in a
    small MLP. It selects, as a product would turn the infinite surprise of a class that the model rules out into NaN.
    Class weights scale rows; their mean is over the number of rows, not over the sum of the weights.
    """
    classes = scores.shape[1]
    smoothing = settings.label_smoothing
    surprises = -torch.log_softmax(scores, dim=1)
    if settings.class_weights:
        surprises = surprises * per_class(torch.tensor(settings.class_weights), scores)
    is_label = labels.unsqueeze(1) == per_class(torch.arange(classes), scores)
    rows = torch.where(is_label, surprises, 0.0).sum(dim=1)
    if smoothing:
        rows = rows * (1 - smoothing) + surprises.sum(dim=1) * (smoothing / classes)
    return _row_means(rows)


def binary_cross_entropy(scores: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """Cross entropy of each logit f32[B, C, ...] against its own 0 or 1 in that shape, the mean of a row as f32[B].

    In torch's form, whose gradient is `sigmoid(score) - label` everywhere; one with `abs` and `relu` is flat at 0.
    """
    entropies = (1 - labels) * scores - functional.logsigmoid(scores)
    if settings.class_weights:
        entropies = entropies * per_class(torch.tensor(settings.class_weights), scores)
    return _row_means(entropies)


def mean_squared_error(outputs: Tensor, targets: Tensor, _settings: LossSettings) -> Tensor:
    """Mean over the values of one row of the squared difference, f32[B, ...] to f32[B]."""
    difference = (outputs - targets).flatten(1)
    return (difference * difference).mean(dim=1)


def huber(outputs: Tensor, targets: Tensor, settings: LossSettings) -> Tensor:
    """Mean over the values of one row of Huber's loss (1964): quadratic up to `huber_delta`, linear beyond."""
    distance = (outputs - targets).flatten(1).abs()
    quadratic = distance.clamp(max=settings.huber_delta)
    return (0.5 * quadratic * quadratic + settings.huber_delta * (distance - quadratic)).mean(dim=1)


def per_class(values: Tensor, scores: Tensor) -> Tensor:
    """`values` [C] in a shape that goes with `scores` [B, C, ...]."""
    return values.reshape(-1, *[1] * (scores.dim() - 2)) if scores.dim() > 2 else values


def _row_means(values: Tensor) -> Tensor:
    """f32[B, ...] to f32[B]."""
    return values.mean(dim=tuple(range(1, values.dim()))) if values.dim() > 1 else values


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


LOSSES: dict[NamedLoss, Loss] = {
    "cross_entropy": Loss(cross_entropy, ("class",)),
    "balanced_cross_entropy": Loss(cross_entropy, ("class",), balances_classes=True),
    "binary_cross_entropy": Loss(binary_cross_entropy, ("multi_label",)),
    "mean_squared_error": Loss(mean_squared_error, ("regression", "reconstruction")),
    "huber": Loss(huber, ("regression", "reconstruction")),
}

CLASSWISE: Final = ("cross_entropy", "balanced_cross_entropy")
USED_BY: Final[Mapping[str, tuple[NamedLoss, ...]]] = {
    "label_smoothing": CLASSWISE,
    "class_weights": (*CLASSWISE, "binary_cross_entropy"),
    "huber_delta": ("huber",),
}
"""Which losses have a setting of `[loss_settings]`."""
