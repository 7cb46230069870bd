"""The heads of a model: which of its outputs, and of the labels, each is about, and how it is scored."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bundle_runtime.log_priors import LOG_PRIOR
from fleet_protocol.sample_schema import LabelSchema, qualified, runs
from workbench.export.recipe.losses import LOSSES, Loss, per_class
from workbench.export.recipe.task_file import USUAL_LOSSES, LossSettings, TaskFile


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one mini-batch, scaled as the task says.

    `inputs` f32[B, *shape]; `labels` i64[B] where they are classes, else f32[B, values], None without any; `real`
    f32[B], 0 on padding; `priors` hold the `Head.log_prior` f32[C] of heads whose loss balances classes, in training.
    """

    inputs: Tensor
    labels: Tensor | None
    real: Tensor
    priors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Head:
    """`place` is where its values stand in the row of labels; `loss` is None where that is written in model.py."""

    name: str
    label: LabelSchema
    place: slice
    loss: Loss | None
    settings: LossSettings
    weight: float

    @property
    def log_prior(self) -> str:
        """The name of what its loss adds to the scores; empty where it adds nothing."""
        return qualified(LOG_PRIOR, self.name) if self.loss is not None and self.loss.balances_classes else ""

    @property
    def has_answers(self) -> bool:
        """Whether an answer is right or wrong."""
        return self.label.kind in {"class", "multi_label"}

    def target(self, batch: Batch) -> Tensor:
        """What its scores are compared with: i64[B, *shape] for classes, else float32; there is one but for `none`."""
        if batch.labels is None or self.label.kind == "reconstruction":
            return batch.inputs
        if self.label.is_index and batch.labels.dim() == 1:
            return batch.labels
        values = batch.labels[:, self.place]
        if self.label.is_index:
            values = values.squeeze(1)
        elif values.shape[1:] != self.label.value_shape:
            values = values.reshape(-1, *self.label.value_shape)
        return values.to(torch.int64) if self.label.kind == "class" else values

    def row_losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """f32[B], as training sees it where the batch has priors.

        Raises:
            LookupError: the loss is written in model.py.
        """
        if self.loss is None:
            raise LookupError(f"head {self.name!r} has no loss of its own")
        if (prior := batch.priors.get(self.log_prior)) is not None:
            scores = scores + per_class(prior, scores)
        return self.loss.rows(scores, self.target(batch), self.settings)

    def right_answers(self, scores: Tensor, batch: Batch) -> Tensor:
        """The share of a row's answers that are right, f32[B]: 0 or 1 where there is one."""
        target = self.target(batch)
        found = scores.argmax(dim=1) == target if self.label.kind == "class" else (scores > 0) == (target > 0.5)
        right = found.to(torch.float32)
        return right.mean(dim=tuple(range(1, right.dim()))) if right.dim() > 1 else right


def heads_of(task: TaskFile) -> tuple[Head, ...]:
    """In the order of the task."""
    settings = task.each_head
    return tuple(
        Head(
            name,
            label,
            place,
            None if task.has_own_loss else LOSSES[settings[name].loss or USUAL_LOSSES[label.kind]],
            settings[name].loss_settings,
            settings[name].weight,
        )
        for name, label, place in runs(task.each_label)
    )
