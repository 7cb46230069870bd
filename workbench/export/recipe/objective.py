"""What a recipe minimises: the loss of each row, from what its module returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from fleet_protocol.sample_schema import InputSchema
from workbench.export.recipe.heads import Batch, Head, heads_of
from workbench.export.recipe.named_inputs import split_row
from workbench.export.recipe.own_loss import OwnLoss
from workbench.export.recipe.task_file import TaskFile

ONLY_SCORES: Final = "scores"
"""The only head, in a dict that forward() returns."""


@dataclass(frozen=True, slots=True)
class Objective:
    """`inputs` are those of forward(), by name, where there are several; `own_losses` are those in model.py, if any:
    one for each part that trains in turn, or one without a name.
    """

    heads: tuple[Head, ...]
    inputs: Mapping[str, InputSchema]
    own_losses: Mapping[str, OwnLoss]

    @classmethod
    def of(cls, task: TaskFile, own_losses: Mapping[str, OwnLoss]) -> "Objective":
        """That of a task."""
        return cls(heads_of(task), task.inputs, own_losses)

    def scores(self, outputs: object) -> tuple[Tensor, ...]:
        """Those of each head, from the tensor, tuple or dict that forward() returned. A loss may be told more.

        Raises:
            LookupError: forward() returned something else.
        """
        names = [head.name or ONLY_SCORES for head in self.heads]
        if not self.own_losses and _values(outputs) > len(names):
            raise LookupError(f"{_described(outputs)}, and no loss in model.py reads more than {len(names)}")
        if isinstance(outputs, Tensor):
            found = {names[0]: outputs}
        elif isinstance(outputs, Mapping):
            found = {name: outputs[name] for name in names if name in outputs}
        elif isinstance(outputs, tuple | list):
            found = dict(zip(names, outputs, strict=False))
        else:
            found = {}
        if lacking := [name for name in names if not isinstance(found.get(name), Tensor)]:
            raise LookupError(f"{_described(outputs)}, without a tensor {lacking[0]!r}")
        return tuple(found[name] for name in names)

    def row_losses(self, outputs: object, batch: Batch, part: str = "") -> Tensor:
        """f32[B]: by the loss in model.py, that of a part if one is named, or the weighted sum of the heads'."""
        if self.own_losses:
            told = self.told(outputs, batch)
            asked = [self.own_losses[part]] if part else self.own_losses.values()
            first, *others = (loss.rows(told, batch.real) for loss in asked)
            return sum(others, start=first)
        scores = self.scores(outputs)
        if len(self.heads) == 1:
            return self.heads[0].row_losses(scores[0], batch)
        pairs = zip(self.heads, scores, strict=True)
        first, *others = (head.weight * head.row_losses(each, batch) for head, each in pairs)
        return sum(others, start=first)

    def told(self, outputs: object, batch: Batch) -> dict[str, object]:
        """What a loss in model.py may be told, by `own_loss.ARGUMENTS`; several inputs or labels as dicts."""
        labels = {head.name: head.target(batch) for head in self.heads if head.label.size}
        only = next(iter(labels.values()), None)
        return {
            "outputs": outputs,
            "labels": labels if len(self.heads) > 1 else only,
            "inputs": split_row(batch.inputs, self.inputs) if self.inputs else batch.inputs,
            "real": batch.real,
        }


def _described(outputs: object) -> str:
    if isinstance(outputs, Tensor):
        return "one tensor"
    if isinstance(outputs, Mapping):
        return f"a dict of {', '.join(map(repr, outputs)) or 'nothing'}"
    kind = type(outputs).__name__
    return f"a {kind} of {len(outputs)}" if isinstance(outputs, tuple | list) else kind


def _values(outputs: object) -> int:
    return len(outputs) if isinstance(outputs, Mapping | tuple | list) else 1
