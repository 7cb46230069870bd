"""`task.toml`: what a person says about a task. docs/task-reference.md is made from these words."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.configuration import Name, PositiveFloat
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.drawing_plan import DrawingPlan
from fleet_protocol.gossip_plan import AS_BUNDLED, GossipPlan
from fleet_protocol.limits import MAX_BLOCKS, MAX_CUTS, MAX_SAMPLE_FIELDS, MAX_SEQUENCE
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.privacy.mask_plan import MASKED_UPDATE_NAME
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.reading_plan import ReadingPlan
from fleet_protocol.sample_schema import WHOLE_ROW, FieldName, InputSchema, LabelKind, LabelSchema
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.sending_plan import ALWAYS, SendingPlan
from fleet_protocol.solved_head import FEATURE_STATISTICS_NAME, SolvedHead
from fleet_protocol.split_plan import Passing
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.recipe.compression.settings import CompressionSettings
from workbench.export.recipe.scaling import ScalingSettings
from workbench.export.recipe.trainable import EVERYTHING

NamedLoss = Literal["cross_entropy", "balanced_cross_entropy", "binary_cross_entropy", "mean_squared_error", "huber"]
LossName = NamedLoss | Literal["model.py"]
OWN_LOSS: Final = "model.py"
USUAL_LOSSES: dict[LabelKind, NamedLoss] = {
    "class": "balanced_cross_entropy",
    "multi_label": "binary_cross_entropy",
    "regression": "mean_squared_error",
    "reconstruction": "mean_squared_error",
}


class BackboneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The frozen part of a model, whose output is computed once per sample and kept (docs/backbone.md)."""

    module: str = ""
    """Name of the submodule."""
    quantise: Literal["int8"] | None = None
    """How its weights travel: as `int8`; left out, as float32."""
    onnx: str = ""
    """In place of `module`: an ONNX file in the recipe's folder, from float32 inputs [N, *input.shape] to float32
    features with a row for each sample. The model of model.py then takes features."""


class LossSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fine tuning of the loss."""

    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """For `cross_entropy` and `balanced_cross_entropy`: share of each label that is spread over all classes."""
    class_weights: list[PositiveFloat] = []
    """For the cross entropies, the binary one too: a factor for each class; left out, 1."""
    huber_delta: PositiveFloat = 1.0
    """For `huber`: where quadratic becomes linear."""


class HeadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several heads: a part of the model's output, with its own labels and loss."""

    label: LabelSchema
    loss: NamedLoss | None = None
    """As `loss` of a task with one head."""
    loss_settings: LossSettings = LossSettings()
    weight: PositiveFloat = 1.0
    """What trains is the sum of all heads' losses, each times its weight."""


class PartSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the model that trains in turn with others, on `loss_NAME` of model.py (docs/recipes.md)."""

    parameters: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Patterns of their names, as of `trainable`; each parameter that trains is in one part."""
    rate: PositiveFloat = 1.0
    """Times `training.learning_rate`."""


class SplitSettings(Passing, frozen=True, forbid_unknown_fields=True):
    """Where a model divides into blocks, some of which a helper may run for a device (docs/split-learning.md)."""

    points: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_BLOCKS - 1)]
    """Names of submodules, in the order of the forward pass: the output of each ends a block."""
    cuts: Annotated[dict[Name, list[tuple[str, str]]], msgspec.Meta(max_length=MAX_CUTS)] = msgspec.field(
        default_factory=dict
    )
    """Name to what a helper runs: pairs of points, from behind the one to the other. Left out, every pair of points is
    a cut, called after their numbers: `2-3` is from behind the second point to the third."""


UPDATES: Final = "update"
NO_INPUT: Final = InputSchema([], 0.0, 0.0)
"""Stands for the row of `inputs` until the task is read."""
NO_LABEL: Final = LabelSchema()
"""Stands for the row of the heads' labels until the task is read."""
USUAL_TRAINING: Final = TrainingPlan(steps=60, batch_size=32, optimiser="momentum")
USUAL_UPDATE: Final = UpdatePlan(keep_fraction=0.1)
"""Where task.toml leaves the whole table out. Chosen for `models/mnist_cnn`, shown on all tasks of docs/learning.md."""


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a task is. The export adds to it what it finds out by itself and writes the bundle's `task.json`."""

    task: Name
    """The task's name, in topics and in commands."""
    title: str
    """What people read."""
    input: InputSchema = NO_INPUT
    inputs: Annotated[dict[FieldName, InputSchema], msgspec.Meta(max_length=MAX_SAMPLE_FIELDS)] = {}
    """In place of [input], where forward() takes several: a table for each, by the parameter's name."""
    readings: ReadingPlan | None = None
    """In place of [input], where a sample is made of readings whose values have names (docs/readings.md)."""
    label: LabelSchema = NO_LABEL
    heads: Annotated[dict[FieldName, HeadSettings], msgspec.Meta(max_length=MAX_SAMPLE_FIELDS)] = {}
    """In place of [label], where the model has several heads: a table for each, by name (docs/recipes.md)."""
    training: TrainingPlan = USUAL_TRAINING
    update: UpdatePlan = USUAL_UPDATE
    aggregation: AggregationPlan = AggregationPlan()
    downlink: DownlinkPlan = DownlinkPlan()
    sending: SendingPlan = ALWAYS
    scaling: ScalingSettings = ScalingSettings()
    solved_head: SolvedHead | None = None
    prompts: PromptPlan | None = None
    clusters: ClusterPlan | None = None
    personal: PersonalPlan | None = None
    selection: SelectionPlan | None = None
    posterior: PosteriorPlan | None = None
    gossip: GossipPlan | None = None
    drawing: DrawingPlan | None = None
    privacy: PrivacyPlan | None = None
    loss: LossName | None = None
    """`balanced_cross_entropy` (usual for label kind `class`): cross entropy with half the log of the device's own
    class frequencies added to the scores in training (logit adjustment, Menon et al. 2021), as devices see unequal
    classes; `cross_entropy`, the same without; `binary_cross_entropy` (for `multi_label`); `mean_squared_error` (usual
    for `regression` and `reconstruction`) or `huber` (for those two as well); `model.py`, the function `loss` in that
    file (docs/recipes.md)."""
    loss_settings: LossSettings = LossSettings()
    parts: Annotated[dict[FieldName, PartSettings], msgspec.Meta(max_length=MAX_SAMPLE_FIELDS)] = {}
    """Where two parts learn against each other, such as generator and discriminator: a table for each, in turn."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`train`: batch normalisation uses each batch's statistics in training, and its running statistics travel.
    `frozen`: it normalises with the running statistics in training too, and leaves them as they are; so does
    `InstanceNorm` that tracks some."""
    trainable: tuple[str, ...] = (EVERYTHING,)
    """Patterns of parameter names, as shells match files: these train, and of batch normalisation the running
    statistics move. All others are frozen into the graphs."""
    backbone: BackboneSettings | None = None
    split: SplitSettings | None = None
    compression: CompressionSettings | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)] = 0
    """Fixes the initial weights."""
    versions_from: str = UPDATES
    """The kind of payload that versions are made from (docs/payload-kinds.md). With a [solved_head], `feature
    statistics`, and with [privacy.masks], `masked update`, which need not be written."""

    @property
    def payload_kind(self) -> str:
        """The kind that versions are made from."""
        if self.versions_from != UPDATES:
            return self.versions_from
        if self.solved_head is not None:
            return FEATURE_STATISTICS_NAME
        return MASKED_UPDATE_NAME if self.privacy is not None and self.privacy.masks else UPDATES

    @property
    def published(self) -> DownlinkPlan:
        """How versions travel, where nothing is said of it: those of a solved head exactly, and where devices learn
        without a coordinator, none does.
        """
        if self.downlink != DownlinkPlan():
            return self.downlink
        if self.gossip is not None:
            return AS_BUNDLED
        return DownlinkPlan("exact") if self.solved_head is not None else self.downlink

    @property
    def each_input(self) -> dict[str, InputSchema]:
        """By name; the only one is called `WHOLE_ROW`."""
        return self.inputs or {WHOLE_ROW: self.input}

    @property
    def each_head(self) -> dict[str, HeadSettings]:
        """By name; the only one is called `WHOLE_ROW`, and has no loss where that is in model.py."""
        if self.heads:
            return self.heads
        named = None if self.loss == OWN_LOSS else self.loss
        return {WHOLE_ROW: HeadSettings(self.label, named, self.loss_settings)}

    @property
    def each_label(self) -> dict[str, LabelSchema]:
        """By the name of its head."""
        return {name: head.label for name, head in self.each_head.items()}

    @property
    def has_own_loss(self) -> bool:
        """Whether the loss is a function in model.py."""
        return (
            bool(self.parts) or self.loss == OWN_LOSS or any(label.kind == "none" for label in self.each_label.values())
        )
