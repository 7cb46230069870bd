"""A task bundle: the files a device needs to take part in a task, and the description that binds them.

The SHA-256 of `task.json` names the bundle; `task.json` names every other file by its own SHA-256.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan, check_aggregation, check_feedback, largest_delta_norm_of
from fleet_protocol.configuration import PositiveInt, parse_document
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.limits import (
    MAX_BLOB_BYTES,
    MAX_PARAMETERS,
    MAX_SAMPLE_FIELDS,
    MAX_SEQUENCE,
    MAX_SETTING,
    MAX_TENSORS,
)
from fleet_protocol.reading_plan import ReadingPlan, check_labelled, check_readings
from fleet_protocol.sample_schema import (
    WHOLE_ROW,
    FieldName,
    InputSchema,
    LabelSchema,
    check_label,
    inputs_as_one,
    labels_as_one,
)
from fleet_protocol.scaling import UNSCALED, Block, Scaling, check_scaling, input_blocks, target_blocks
from fleet_protocol.sending_plan import ALWAYS, SendingPlan, check_sending
from fleet_protocol.solved_head import FEATURE_STATISTICS_NAME, SolvedHead, check_solved_head
from fleet_protocol.split_plan import SplitPlan, backward_file, check_averaged, check_split, forward_file, last_file
from fleet_protocol.topics import check_name

BUNDLE_FORMAT = 1
DESCRIPTION_FILE = "task.json"
TRAIN_FILE = "train.onnx"
EVALUATE_FILE = "evaluate.onnx"
PREDICT_FILE = "predict.onnx"
TRAIN_PER_SAMPLE_FILE = "train_per_sample.onnx"
"""Only in a bundle whose plan asks for per-sample gradients."""
BACKBONE_FILE = "backbone.onnx"
"""Only in a bundle whose description has a `backbone`."""
WEIGHTS_FILE = "weights.safetensors"
ORT_TRAINING_FILE = "ort_training.onnx"
ORT_OPTIMISER_FILE = "ort_optimiser.onnx"
ORT_CHECKPOINT_FILE = "ort_checkpoint.bin"
"""Only in a bundle that was exported for the engine `ort-training` too; formats of onnxruntime-training 1.19.2."""
REQUIRED_FILES = (TRAIN_FILE, EVALUATE_FILE, PREDICT_FILE, WEIGHTS_FILE)

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
BlobHash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class BackboneSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `backbone.onnx` makes of one sample: float32 features of `feature_shape`, without the batch axis."""

    feature_shape: list[PositiveInt]


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One float32 tensor of the flat weight vector, which holds them in this order.

    One that isn't `trainable` is a buffer that training changes in another way, such as a running mean; buffers
    stand behind all others.
    """

    name: str
    shape: list[PositiveInt]
    trainable: bool = True
    block: int = 0
    """Which block of the task's `split` it is in."""

    @property
    def size(self) -> int:
        """Values in the tensor."""
        return math.prod(self.shape)


class TrainingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a device does in one round of training."""

    steps: PositiveInt
    """Mini-batches per round."""
    batch_size: PositiveInt
    """Samples per mini-batch, drawn from those that are stored."""
    learning_rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Step size of `optimiser`. Left out or 0 in `task.toml`, it is found at export
    (docs/decisions/learning-rate-found-at-export.md); a bundle always has one."""
    optimiser: Literal["sgd", "momentum", "nesterov", "adam", "adamw"] = "sgd"
    """The training graph is made for it. Its state begins anew in every round."""
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    """For `momentum` and `nesterov`."""
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """L2 penalty; decoupled with `adamw`."""
    gradient_clip: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Largest Euclidean norm of a step's gradient, or of each sample's with `per_sample_gradients`; 0: no limit."""
    proximal: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """FedProx's coefficient (Li et al. 2020): pulls towards the version that the round began with."""
    per_sample_gradients: bool = False
    """Clip each sample's gradient instead of their mean."""
    epochs_per_round: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 5
    """A round goes over a device's samples at most so often: where these are few, it has fewer `steps`. 0: no limit."""
    maximum_epochs: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 300
    """All rounds of a device go over the same samples at most so often; then it waits for new ones. 0: no limit."""
    validation_share: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    """A device never trains on this share of its samples, and does not send a round that makes them worse
    (docs/decisions/knowing-when-to-stop.md)."""

    @property
    def graph_file(self) -> str:
        """The training graph that a device runs."""
        return TRAIN_PER_SAMPLE_FILE if self.per_sample_gradients else TRAIN_FILE


class UpdatePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How what was learned is compressed; what is left out stays on the device. Formulas: `fleet_protocol.codec`."""

    keep_fraction: Fraction
    """At most this share of the entries travels."""
    quantisation: Literal["ternary", "float32", "float16", "int8", "int4", "sign"] = "ternary"
    """How a kept entry is written: `ternary` as a sign with one magnitude for each tensor, `sign` as a sign with one
    for all; the others as numbers of that size."""
    selection: Literal["top_k", "top_k_per_tensor", "threshold", "random_k", "dense"] = "top_k"
    """Which entries are kept: the largest of the whole vector (`top_k`) or of each tensor, those of magnitude
    `threshold` or more, random ones, or all (`dense`)."""
    threshold: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """For `threshold`: the smallest magnitude."""
    stochastic_rounding: bool = False
    """For `int8` and `int4`: round at random, right on average."""
    feedback: Literal["residual", "momentum", "ef21"] = "residual"
    """How the device remembers what was left out (docs/decisions/error-feedback.md): added to the next round
    (`residual`), also with momentum, or as EF21's estimate, which goes with the strategy `ef21` and no other."""
    feedback_momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    """Decay of the feedback `momentum`."""


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
        return sum(parameter.size for parameter in self.parameters[_first_statistic(self.parameters) :])

    @cached_property
    def trained_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the parameters in front of the statistics."""
        return self.shapes[: _first_statistic(self.parameters)]

    @cached_property
    def trained_count(self) -> int:
        """How many values are in front of the statistics."""
        return self.parameter_count - self.statistics

    @cached_property
    def parameter_count(self) -> int:
        """Length of the flat weight vector."""
        return sum(parameter.size for parameter in self.parameters)

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

    @cached_property
    def largest_delta_norm(self) -> float:
        """The largest Euclidean norm of one update."""
        given = self.aggregation.max_delta_norm
        return largest_delta_norm_of(self.parameter_count) if given is None else given


def blob_hash(data: bytes) -> str:
    """A file's content address: its SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def parse_description(text: bytes, name: str = DESCRIPTION_FILE) -> TaskDescription:
    """Read and check `task.json`.

    Raises:
        ConfigurationError: not the format of this version, or values that contradict each other.
    """
    described = parse_document(text, _Format, name, "json")
    if described.format != BUNDLE_FORMAT:
        raise ConfigurationError(
            f"{name}: bundle format {described.format}, this edgeflock reads {BUNDLE_FORMAT}; "
            + ("update edgeflock" if described.format > BUNDLE_FORMAT else "export the bundle again")
        )
    description = parse_document(text, TaskDescription, name, "json")
    _check_size(description, name)
    _check_files(description, name)
    if not description.training.learning_rate:
        raise ConfigurationError(
            f"{name}: training.learning_rate is missing or 0; export the bundle again, or write it"
        )
    _check_sample(description, name)
    _check_blocks(description, name)
    check_aggregation(description.aggregation, name)
    check_feedback(description.update.feedback, description.aggregation, name)
    check_sending(description.sending, description.update.feedback, description.training.validation_share, name)
    check_scaling(description.scaling, description.input_blocks, description.target_blocks, name)
    _check_head(description, name)
    return description


def verify_bundle(files: Mapping[str, bytes], expected_hash: str | None = None) -> TaskDescription:
    """Check that `files` (name to content) are one whole, unaltered bundle.

    Raises:
        ConfigurationError: `task.json` is missing or wrong.
        ProtocolError: `WRONG_HASH` or `TOO_LARGE`, naming the file.
    """
    if DESCRIPTION_FILE not in files:
        raise ConfigurationError(f"bundle lacks {DESCRIPTION_FILE}; it contains {sorted(files)}")
    text = files[DESCRIPTION_FILE]
    if expected_hash is not None:
        verify_blob(DESCRIPTION_FILE, text, expected_hash)
    description = parse_description(text)
    for name, expected in description.files.items():
        verify_blob(name, files.get(name, b""), expected)
    return description


def verify_blob(name: str, data: bytes, expected_hash: str) -> None:
    """Check one file against its content address.

    Raises:
        ProtocolError: `TOO_LARGE` or `WRONG_HASH`.
    """
    if len(data) > MAX_BLOB_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"{name}: {len(data)} bytes exceed MAX_BLOB_BYTES ({MAX_BLOB_BYTES})")
    if blob_hash(data) != expected_hash:
        raise ProtocolError(
            Reason.WRONG_HASH,
            f"{name}: SHA-256 of its {len(data)} bytes is {blob_hash(data)[:16]}…, expected {expected_hash[:16]}…;"
            " the file is truncated or altered: fetch or export it again",
        )


def _check_sample(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if inputs or labels contradict themselves, or the rows that they make up."""
    for head, label in description.each_label.items():
        check_label(label, f"{name}: heads.{head}" if head else name)
    for field, schema in description.each_input.items():
        what = f"inputs.{field}" if field else "input"
        if schema.minimum > schema.maximum:
            raise ConfigurationError(
                f"{name}: {what}.minimum {schema.minimum:g} exceeds {what}.maximum {schema.maximum:g}"
            )
    if description.inputs and description.input != inputs_as_one(description.inputs):
        raise ConfigurationError(f"{name}: `input` is not the row of `inputs`; export the bundle again")
    if description.heads and description.label != labels_as_one(description.heads):
        raise ConfigurationError(f"{name}: `label` is not the row of `heads`' labels; export the bundle again")
    if description.readings is not None:
        check_readings(description.readings, name)
        check_labelled(description.readings, description.label, name)
        if description.inputs or description.input != description.readings.input:
            raise ConfigurationError(f"{name}: `input` is not what `readings` make; export the bundle again")


def _first_statistic(parameters: Sequence[Parameter]) -> int:
    """The place of the first entry behind the last trainable one."""
    place = len(parameters)
    while place and not parameters[place - 1].trainable:
        place -= 1
    return place


def _check_size(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if the name can't stand in a topic, or the parameters exceed a limit."""
    try:
        check_name("task", description.task)
    except ProtocolError as error:
        raise ConfigurationError(f"{name}: {error.detail}") from error
    if not 1 <= description.parameter_count <= MAX_PARAMETERS or len(description.parameters) > MAX_TENSORS:
        raise ConfigurationError(
            f"{name}: {description.parameter_count} parameters in {len(description.parameters)} tensors;"
            f" allowed are 1 to {MAX_PARAMETERS} in at most {MAX_TENSORS}"
        )
    if not all(parameter.trainable for parameter in description.parameters[: len(description.trained_shapes) or 1]):
        raise ConfigurationError(
            f"{name}: entries of `parameters` that are not trainable must stand behind all others, of which there is"
            " one at least; export the bundle again"
        )
    if len({parameter.name for parameter in description.parameters}) < len(description.parameters):
        raise ConfigurationError(f"{name}: two entries of `parameters` have the same name")


def _check_files(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if `files` lacks what the rest of the description speaks of."""
    files = description.files
    if missing := [file for file in REQUIRED_FILES if file not in files]:
        raise ConfigurationError(f"{name}: `files` lacks {', '.join(missing)}")
    if description.training.per_sample_gradients and TRAIN_PER_SAMPLE_FILE not in files:
        raise ConfigurationError(f"{name}: training.per_sample_gradients, but `files` lacks {TRAIN_PER_SAMPLE_FILE}")
    if (description.backbone is None) != (BACKBONE_FILE not in files):
        raise ConfigurationError(f"{name}: `backbone` and {BACKBONE_FILE} in `files` belong together; one is missing")
    if unknown := sorted(description.onnx_versions.keys() - files.keys()):
        raise ConfigurationError(f"{name}: onnx_versions names {', '.join(unknown)}, which `files` lacks")


def _check_blocks(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if `split` contradicts itself, or `files` lacks a graph of it."""
    if description.split is None:
        return
    blocks = [parameter.block for parameter in description.parameters]
    check_split(description.split, blocks, description.training.batch_size, name)
    check_averaged(description.aggregation, name)
    if missing := sorted(split_files(description) - description.files.keys()):
        raise ConfigurationError(f"{name}: `split`, but `files` lacks {', '.join(missing)}; export the bundle again")


def _check_head(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if the task can't have the head that it says is solved."""
    if (description.solved_head is not None) != (description.versions_from == FEATURE_STATISTICS_NAME):
        raise ConfigurationError(
            f"{name}: versions_from is {description.versions_from!r}; a task has a table [solved_head] where that is"
            f" {FEATURE_STATISTICS_NAME!r}, and nowhere else"
        )
    if description.solved_head is None:
        return
    if description.heads or description.split or description.scaling != UNSCALED:
        raise ConfigurationError(
            f"{name}: [solved_head] goes with one head, no [split], and inputs as they are: leave [heads] and [split]"
            ' out, and write [scaling] inputs = "off"'
        )
    if description.downlink.differences == "lossy":
        raise ConfigurationError(
            f"{name}: a solved head is published as it is, for a grid as coarse as updates bear would spoil it; write"
            ' [downlink] differences = "exact"'
        )
    check_solved_head(description.solved_head, description.label, description.feature_count, description.shapes, name)


def split_files(description: TaskDescription, chosen: Collection[int] | None = None) -> set[str]:
    """The graphs of the `chosen` blocks, or of all; none where the task has no `split`."""
    if description.split is None:
        return set()
    last = len(description.split.blocks) - 1
    files = [[forward_file(block), backward_file(block)] for block in range(last)]
    files.append([last_file(last, part) for part in description.split.turns])
    return {file for block, each in enumerate(files) if chosen is None or block in chosen for file in each}


class _Format(msgspec.Struct):
    format: int
