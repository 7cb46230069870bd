"""Checking a task bundle: the files a device needs to take part in a task, and the description that binds them.

The SHA-256 of `task.json` names the bundle; `task.json` names every other file by its own SHA-256.
"""

from collections.abc import Mapping

import msgspec

from fleet_protocol.activation_plan import check_activations
from fleet_protocol.aggregation_plan import check_aggregation, check_feedback
from fleet_protocol.bundle_files import (
    BACKBONE_FILE,
    DESCRIPTION_FILE,
    DRAW_FILE,
    REQUIRED_FILES,
    TRAIN_PER_SAMPLE_FILE,
    verify_blob,
)
from fleet_protocol.client_drift import check_client_drift
from fleet_protocol.cluster_plan import check_clusters, check_copies, check_found_by
from fleet_protocol.configuration import parse_document
from fleet_protocol.downlink_plan import check_downlink
from fleet_protocol.drawing_plan import check_drawing
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.gossip_plan import check_gossip_table
from fleet_protocol.limits import (
    MAX_PARAMETERS,
    MAX_TENSORS,
)
from fleet_protocol.parameter import first_statistic
from fleet_protocol.personal_plan import check_personal
from fleet_protocol.posterior_plan import check_posterior
from fleet_protocol.privacy.device_privacy import check_device_private_task
from fleet_protocol.privacy.mask_plan import check_masked_task
from fleet_protocol.privacy.private_tasks import check_private_task
from fleet_protocol.prompt_plan import check_prompts
from fleet_protocol.reading_plan import check_labelled, check_readings
from fleet_protocol.robust_plan import check_robust_task, check_single_updates
from fleet_protocol.sample_schema import (
    check_label,
    inputs_as_one,
    labels_as_one,
)
from fleet_protocol.scaling import UNSCALED, check_scaling
from fleet_protocol.selection_plan import check_selection
from fleet_protocol.sending_plan import check_sending
from fleet_protocol.solved_head import FEATURE_STATISTICS_NAME, check_solved_head
from fleet_protocol.split_plan import check_averaged, check_split
from fleet_protocol.task_description import BUNDLE_FORMAT, TaskDescription, split_files
from fleet_protocol.topics import check_name
from fleet_protocol.training_plan import check_training
from fleet_protocol.update_plan import check_update


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
    if description.aggregation.rule is not None:
        check_robust_task(description, name)
    if description.aggregation.suspects is not None:
        check_single_updates(description, "aggregation.quarantine", name)
    check_training(description.training, name)
    check_update(description.update, name)
    check_downlink(description.downlink, name)
    check_feedback(description.update.feedback, description.aggregation, name)
    check_sending(description.sending, description.update.feedback, description.training.validation_share, name)
    check_scaling(description.scaling, description.input_blocks, description.target_blocks, name)
    _check_head(description, name)
    _check_prompts(description, name)
    _check_clusters(description, name)
    if description.personal is not None:
        check_personal(description, description.personal, name)
    check_client_drift(description, name)
    check_posterior(description, name)
    if description.selection is not None:
        check_selection(description, description.selection, name)
    if description.gossip is not None:
        check_gossip_table(description, description.gossip, name)
    check_masked_task(description, name)
    if description.device_privacy is not None:
        check_device_private_task(description, description.device_privacy, name)
    if description.sample_privacy is not None:
        check_private_task(description, description.sample_privacy, name)
    if description.drawing is not None:
        scaled = description.scaling.inputs is not None
        check_drawing(description.drawing, description.inputs, name, scaled=scaled)
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
    trained = description.parameters[: first_statistic(description.parameters) or 1]
    if not all(parameter.trainable for parameter in trained):
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
    if (description.drawing is None) != (DRAW_FILE not in files):
        raise ConfigurationError(f"{name}: `drawing` and {DRAW_FILE} in `files` belong together; one is missing")
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


def _check_prompts(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if devices can't tell the prompts that the task asks for, or nothing comes of them."""
    if description.prompts is None:
        return
    if description.solved_head is not None:
        raise ConfigurationError(
            f"{name}: the next message of a device would solve the head anew, whatever was trained on synthetic data;"
            " leave [prompts] or [solved_head] out, or publish a second task"
        )
    check_prompts(description.prompts, description.label, description.feature_count, name)


def _check_clusters(description: TaskDescription, name: str) -> None:
    """Raise `ConfigurationError` if copies do not go with the task's other settings, or are too many."""
    plan = description.clusters
    if plan is None:
        return
    check_clusters(
        plan,
        description.aggregation,
        description.versions_from,
        has_prompts=description.prompts is not None,
        name=name,
    )
    check_found_by(plan, description.sending.rule, name, has_split=description.split is not None)
    check_activations(plan, description.split, name)
    layout = description.version
    check_copies(plan, [each.name for each in layout.parameters], sorted(layout.copied), layout.size, name)


class _Format(msgspec.Struct):
    format: int
