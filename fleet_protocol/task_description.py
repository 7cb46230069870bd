"""The content of `task.json`: what a task is, and what follows from it."""

import math
from collections.abc import Collection
from functools import cached_property
from typing import Annotated

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan, largest_delta_norm_of
from fleet_protocol.bundle_files import BACKBONE_FILE, SAMPLE_GRADIENTS_FILE, BlobHash
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.configuration import PositiveInt
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.drawing_plan import DrawingPlan
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.limits import MAX_SAMPLE_FIELDS, MAX_SEQUENCE
from fleet_protocol.parameter import Parameter, first_statistic
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.privacy.device_privacy import DevicePrivacy
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.quarantine_plan import QuarantinePlan, suspected_by
from fleet_protocol.reading_plan import ReadingPlan
from fleet_protocol.sample_schema import WHOLE_ROW, FieldName, InputSchema, LabelSchema
from fleet_protocol.scaling import UNSCALED, Block, Scaling, input_blocks, target_blocks
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.sending_plan import ALWAYS, SendingPlan
from fleet_protocol.solved_head import SolvedHead
from fleet_protocol.split_plan import SplitPlan, backward_file, forward_file, last_file, passing_file
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from fleet_protocol.version_layout import VersionLayout

BUNDLE_FORMAT = 1


class BackboneSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `backbone.onnx` makes of one sample: float32 features of `feature_shape`, without the batch axis."""

    feature_shape: list[PositiveInt]


class OnnxVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an onnxruntime must support to load a graph: its IR version, and its opset of ONNX's own operators."""

    ir_version: PositiveInt
    opset: PositiveInt


class TaskDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """The content of `task.json`. With a `backbone`, the other graphs take its features instead of inputs.

    `onnx_versions` are those of the graphs by their files' names, for whoever reads this before the graphs; a bundle
    may lack them, and what is loaded is judged by its own bytes. `versions_from` names the one kind of payload that
    versions are made from (`fleet_protocol.kinds`): a task's devices send no other that could be.

    What follows from the fields is computed once: admission asks for it at each update.
    """

    format: int
    task: str
    title: str
    input: InputSchema
    label: LabelSchema
    parameters: list[Parameter]
    training: TrainingPlan
    update: UpdatePlan
    aggregation: AggregationPlan
    files: dict[str, BlobHash]
    backbone: BackboneSchema | None = None
    downlink: DownlinkPlan = DownlinkPlan()
    onnx_versions: dict[str, OnnxVersion] = {}
    versions_from: str = "update"
    scaling: Scaling = UNSCALED
    sending: SendingPlan = ALWAYS
    inputs: Annotated[dict[FieldName, InputSchema], msgspec.Meta(max_length=MAX_SAMPLE_FIELDS)] = {}
    """Where a sample has several, by the names of forward()'s parameters; `input` is then their row."""
    heads: Annotated[dict[FieldName, LabelSchema], msgspec.Meta(max_length=MAX_SAMPLE_FIELDS)] = {}
    """Where a model has several, by name; `label` is then the row of their labels."""
    readings: ReadingPlan | None = None
    """How readings with named values become samples; `input` then follows from it."""
    split: SplitPlan | None = None
    """Where devices may leave some blocks of the model to a helper."""
    solved_head: SolvedHead | None = None
    """Where the coordinator solves the last layer from what devices say of their features."""
    prompts: PromptPlan | None = None
    """Where devices tell from what data like theirs can be synthesised."""
    clusters: ClusterPlan | None = None
    """Where some parameters have a copy for each cluster of devices."""
    drawing: DrawingPlan | None = None
    """Where a part of the model draws pictures."""
    privacy: PrivacyPlan | None = None
    """What is promised about what leaves a device."""
    personal: PersonalPlan | None = None
    """What of the model is each device's own."""
    selection: SelectionPlan | None = None
    """Which devices train for a version."""
    posterior: PosteriorPlan | None = None
    """Where the model is a distribution over some of its weights."""
    gossip: GossipPlan | None = None
    """Where devices learn without a coordinator."""

    @property
    def sample_privacy(self) -> SamplePrivacy | None:
        """What is promised of single samples."""
        return self.privacy.samples if self.privacy else None

    @property
    def masks(self) -> MaskPlan | None:
        """How the coordinator is kept from seeing single updates."""
        return self.privacy.masks if self.privacy else None

    @property
    def device_privacy(self) -> DevicePrivacy | None:
        """What is promised of single devices."""
        return self.privacy.devices if self.privacy else None

    @property
    def graph_file(self) -> str:
        """The graph that a device trains with."""
        return SAMPLE_GRADIENTS_FILE if self.sample_privacy else self.training.graph_file

    @property
    def each_input(self) -> dict[str, InputSchema]:
        """By name; the only one is called `WHOLE_ROW`."""
        return self.inputs or {WHOLE_ROW: self.input}

    @property
    def each_label(self) -> dict[str, LabelSchema]:
        """By the name of its head; the only one is called `WHOLE_ROW`."""
        return self.heads or {WHOLE_ROW: self.label}

    @property
    def each_trained_input(self) -> dict[str, InputSchema]:
        """As training takes them: the features, where the task has a backbone."""
        return {WHOLE_ROW: self.trained_input} if self.backbone else self.each_input

    @property
    def input_blocks(self) -> list[Block]:
        """Where values stand in the row of inputs, as training takes it, that `scaling.inputs` has columns for."""
        return input_blocks(self.each_trained_input)

    @property
    def target_blocks(self) -> list[Block]:
        """Where values stand in the row of labels that `scaling.targets` has columns for."""
        return target_blocks(self.each_label)

    @cached_property
    def trained_input(self) -> InputSchema:
        """What training, evaluation and prediction take of one sample: its features or, without a backbone, its inputs.

        Features have no bounds but those of float32.
        """
        return InputSchema(self.backbone.feature_shape, -math.inf, math.inf) if self.backbone else self.input

    @cached_property
    def backbone_hash(self) -> str:
        """What names the backbone that features were computed by; empty without one."""
        return self.files[BACKBONE_FILE] if self.backbone else ""

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each parameter, in the order of the flat weight vector."""
        return tuple(tuple(parameter.shape) for parameter in self.parameters)

    @cached_property
    def statistics(self) -> int:
        """How many values at the end of the flat weight vector are running statistics, which travel apart."""
        return sum(parameter.size for parameter in self.parameters[first_statistic(self.parameters) :])

    @cached_property
    def buffered_blocks(self) -> frozenset[int]:
        """The blocks of the `split` that have running statistics."""
        return frozenset(each.block for each in self.parameters[first_statistic(self.parameters) :])

    @cached_property
    def trained_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of what an update is a change of: the parameters in front of the statistics and, with a
        `posterior`, their precisions.
        """
        if self.posterior is not None:
            return self.version.shapes
        return self.shapes[: first_statistic(self.parameters)]

    @cached_property
    def statistics_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the running statistics."""
        return self.shapes[first_statistic(self.parameters) :]

    @cached_property
    def trained_count(self) -> int:
        """How many values `trained_shapes` have."""
        return sum(map(math.prod, self.trained_shapes))

    @cached_property
    def parameter_count(self) -> int:
        """Length of the flat weight vector."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def own_parameters(self) -> frozenset[str]:
        """Names of the parameters that never leave a device."""
        return self.personal.own([each.name for each in self.parameters]) if self.personal else frozenset()

    @property
    def blocks(self) -> int:
        """How many the model divides into: one without a `split`."""
        return len(self.split.blocks) if self.split else 1

    @cached_property
    def version(self) -> VersionLayout:
        """What a version holds: `parameters`, with `clusters` copies of some, with a `posterior` their precisions."""
        return VersionLayout.of(self.parameters, self.clusters, self.split, self.posterior)

    @cached_property
    def feature_count(self) -> int:
        """Values that a sample has as training takes it."""
        return math.prod(self.trained_input.shape)

    @cached_property
    def largest_staleness(self) -> int:
        """In versions: what is staler is refused. Nothing of a solved head is: sums don't depend on a version."""
        return MAX_SEQUENCE if self.solved_head else self.aggregation.max_staleness

    @cached_property
    def longest_wait_seconds(self) -> float:
        """After this time a version is made of what has come, if anything has; 0: there is no such time."""
        return self.solved_head.longest_wait_seconds if self.solved_head else self.aggregation.round_seconds

    @property
    def averaged_versions(self) -> int | None:
        """How many versions the model to use is the mean of, where the task says it. Solved heads are not averaged:
        each is of all that those before it are of.
        """
        return 1 if self.solved_head else self.aggregation.averaged_versions

    @cached_property
    def suspects(self) -> QuarantinePlan | None:
        """By what suspicious updates are held or tempered; None where none are."""
        return suspected_by(self)

    @cached_property
    def largest_delta_norm(self) -> float:
        """The largest Euclidean norm of one update."""
        given = self.aggregation.max_delta_norm
        if given is None and self.posterior is not None:
            return self.posterior.largest_norm(self.trained_count)
        return largest_delta_norm_of(self.parameter_count) if given is None else given


def split_files(description: TaskDescription, chosen: Collection[int] | None = None) -> set[str]:
    """The graphs of the `chosen` blocks, or of all; none where the task has no `split`."""
    if description.split is None:
        return set()
    last = len(description.split.blocks) - 1
    files = [
        [forward_file(block), backward_file(block), *{passing_file(block)} & description.files.keys()]
        for block in range(last)
    ]
    files.append([last_file(last, part) for part in description.split.turns])
    return {file for block, each in enumerate(files) if chosen is None or block in chosen for file in each}
