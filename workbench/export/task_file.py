"""`task.toml`: what a person says about a task. docs/task-reference.md is made from these words."""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import InputSchema, LabelKind, LabelSchema, PositiveFloat, TrainingPlan, UpdatePlan
from fleet_protocol.configuration import Name
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.limits import MAX_SEQUENCE
from workbench.export.scaling import ScalingSettings
from workbench.export.trainable import EVERYTHING

LossName = Literal["cross_entropy", "balanced_cross_entropy", "binary_cross_entropy", "mean_squared_error", "huber"]
USUAL_LOSSES: dict[LabelKind, LossName] = {
    "class": "balanced_cross_entropy",
    "multi_label": "binary_cross_entropy",
    "regression": "mean_squared_error",
    "reconstruction": "mean_squared_error",
}


class BackboneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The frozen part of a model, whose output is computed once per sample and kept (docs/backbone.md)."""

    module: Annotated[str, msgspec.Meta(min_length=1)]
    """Name of the submodule."""
    quantise: Literal["int8"] | None = None
    """How its weights travel: as `int8`; left out, as float32."""


class LossSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fine tuning of the loss."""

    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """For `cross_entropy` and `balanced_cross_entropy`: share of each label that is spread over all classes."""
    class_weights: list[PositiveFloat] = []
    """For the cross entropies: a factor for each class; left out, 1."""
    huber_delta: PositiveFloat = 1.0
    """For `huber`: where quadratic becomes linear."""


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task is. The export adds to it what it finds out by itself and writes the bundle's `task.json`."""

    task: Name
    """The task's name, in topics and in commands."""
    title: str
    """What people read."""
    input: InputSchema
    label: LabelSchema
    training: TrainingPlan
    update: UpdatePlan
    aggregation: AggregationPlan
    downlink: DownlinkPlan = DownlinkPlan()
    scaling: ScalingSettings = ScalingSettings()
    loss: LossName | None = None
    """`balanced_cross_entropy` (usual for label kind `class`): cross entropy with half the log of the device's own
    class frequencies added to the scores in training (logit adjustment, Menon et al. 2021), as devices see unequal
    classes; `cross_entropy`, the same without; `binary_cross_entropy` (for `multi_label`); `mean_squared_error` (usual
    for `regression` and `reconstruction`) or `huber` (for those two as well)."""
    loss_settings: LossSettings = LossSettings()
    batch_norm: Literal["train", "frozen"] = "train"
    """`train`: batch normalisation uses each batch's statistics in training, and its running statistics travel.
    `frozen`: it normalises with the running statistics in training too, and leaves them as they are."""
    trainable: tuple[str, ...] = (EVERYTHING,)
    """Patterns of parameter names, as shells match files: these train, and of batch normalisation the running
    statistics move. All others are frozen into the graphs."""
    backbone: BackboneSettings | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)] = 0
    """Fixes the initial weights."""
    versions_from: str = "update"
    """The kind of payload that versions are made from (docs/payload-kinds.md)."""

    @property
    def loss_name(self) -> LossName:
        """The loss that is named, or the usual one for the kind of label."""
        return self.loss or USUAL_LOSSES[self.label.kind]
