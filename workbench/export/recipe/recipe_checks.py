"""Whether `task.toml` agrees with itself about inputs, labels and losses."""

from collections.abc import Sequence
from pathlib import Path

from fleet_protocol.aggregation_plan import check_aggregation, check_feedback
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.reading_plan import ReadingPlan, check_labelled, check_readings
from fleet_protocol.sample_schema import check_label, qualified
from fleet_protocol.without_effect import check_setting
from workbench.export.recipe.compression.settings import CompressionSettings
from workbench.export.recipe.losses import LOSSES, USED_BY
from workbench.export.recipe.task_file import (
    NO_INPUT,
    NO_LABEL,
    OWN_LOSS,
    USUAL_LOSSES,
    BackboneSettings,
    LossSettings,
    TaskFile,
)
from workbench.export.recipe.trainable import is_selected


def check_task(task: TaskFile, path: Path) -> None:
    """Check what `task.toml` at `path` says of inputs, labels and losses.

    Raises:
        ConfigurationError: it contradicts itself.
    """
    if task.backbone is not None:
        _check_backbone(task, task.backbone, path)
    if task.readings is not None:
        _check_readings(task, task.readings, path)
    for one, several, given in (
        ("input", "inputs", task.input != NO_INPUT or task.readings is not None),
        ("label", "heads", task.label != NO_LABEL),
    ):
        if given == bool(getattr(task, several)):
            raise ConfigurationError(
                f"{path}: {'both' if given else 'neither'} [{one}] {'and' if given else 'nor'} [{several}.NAME];"
                f" describe one {one} in [{one}], or each of several in a table [{several}.NAME]"
            )
    for name, schema in task.each_input.items():
        if schema.whole and schema.missing == "mean":
            what = qualified("inputs" if name else "input", name)
            raise ConfigurationError(f"{path}: {what} is whole numbers, which have no mean; leave missing = 'mean' out")
    for name, head in task.each_head.items():
        place = f"{path}: heads.{name}" if name else str(path)
        check_label(head.label, place)
        if head.label.kind == "reconstruction" and task.inputs:
            raise ConfigurationError(
                f"{place}: label.kind 'reconstruction' gives back one input, this task has {len(task.inputs)}; write"
                " kind = 'none', and a loss in model.py that compares them"
            )
        _check_loss(head.label.kind, head.label.classes, task, name, place)
    check_aggregation(task.aggregation, str(path))
    check_feedback(task.update.feedback, task.aggregation, str(path))
    if task.split is not None:
        _check_divisible(task, path)
    if task.compression is not None:
        _check_compressible(task, path)


def _check_divisible(task: TaskFile, path: Path) -> None:
    training = task.training
    if training.gradient_clip or training.per_sample_gradients:
        setting = "gradient_clip" if training.gradient_clip else "per_sample_gradients"
        raise ConfigurationError(
            f"{path}: training.{setting} needs the gradient of the whole model at once, and with [split] nobody has it;"
            f" leave {setting} out, or [split]; split.gradient_clip limits what leaves a device"
        )


def _check_compressible(task: TaskFile, path: Path) -> None:
    if task.solved_head is not None:
        raise ConfigurationError(
            f"{path}: [compression] says what devices train, and with [solved_head] they train nothing; leave one out"
        )
    if task.compression == CompressionSettings():
        raise ConfigurationError(
            f"{path}: [compression] says nothing; write a table [compression.adapters], [compression.factors] or"
            " [compression.pruning], or leave it out"
        )


def _check_backbone(task: TaskFile, backbone: BackboneSettings, path: Path) -> None:
    if bool(backbone.module) == bool(backbone.onnx):
        raise ConfigurationError(
            f"{path}: [backbone] names its part of the model as `module`, or a file as `onnx`; write one of them"
        )
    if backbone.onnx and (backbone.quantise or task.inputs or task.readings):
        raise ConfigurationError(
            f"{path}: backbone.onnx goes with one [input], and its weights as they are; leave backbone.quantise out,"
            " and write [input] in place of [inputs] or [readings]"
        )


def _check_readings(task: TaskFile, plan: ReadingPlan, path: Path) -> None:
    if task.input != NO_INPUT or task.inputs:
        raise ConfigurationError(f"{path}: [readings] says what the inputs are; leave [input] and [inputs.NAME] out")
    if task.heads:
        raise ConfigurationError(f"{path}: [readings] finds the label of one head; describe it in [label]")
    check_readings(plan, str(path))
    check_labelled(plan, task.label, str(path))


def _check_loss(kind: str, classes: int, task: TaskFile, name: str, place: str) -> None:
    head = task.each_head[name]
    if task.has_own_loss:
        if head.loss or head.loss_settings != LossSettings() or head.weight != 1 or task.loss not in (None, OWN_LOSS):
            raise ConfigurationError(
                f"{place}: the loss is the one in model.py; leave other losses, loss_settings and weight out"
            )
        return
    if task.heads and (task.loss or task.loss_settings != LossSettings()):
        raise ConfigurationError(f"{place}: loss and [loss_settings] are those of one head; write them in [heads.NAME]")
    loss = head.loss or USUAL_LOSSES[head.label.kind]
    if head.label.kind not in LOSSES[loss].label_kinds:
        fitting = " or ".join(repr(name) for name, each in LOSSES.items() if kind in each.label_kinds)
        raise ConfigurationError(
            f"{place}: loss {loss!r} is for label.kind {' or '.join(LOSSES[loss].label_kinds)}, this is {kind!r}; write"
            f" loss = {fitting}"
        )
    for setting, users in USED_BY.items():
        check_setting(head.loss_settings, setting, ("loss", loss), users, f"{place}: loss_settings")
    weights = len(head.loss_settings.class_weights)
    if weights not in (0, classes):
        raise ConfigurationError(
            f"{place}: loss_settings.class_weights has {weights} entries; give one for each of {classes} classes"
        )


def check_parts(task: TaskFile, trained: Sequence[str], path: Path) -> None:
    """Check the parts that train in turn, if there are any, on the names of all parameters that train.

    Raises:
        ConfigurationError: a parameter is in no part or in two, or the task asks for what has no meaning then.
    """
    if not task.parts:
        return
    for name in trained:
        parts = [part for part, settings in task.parts.items() if is_selected(name, settings.parameters)]
        if len(parts) != 1:
            raise ConfigurationError(
                f"{path}: the parameter {name!r} is in {' and '.join(parts) or 'none'} of the parts"
                f" {', '.join(task.parts)}; let the patterns of one of them fit it, or leave it out of `trainable`"
            )
    training = task.training
    if training.validation_share or not training.learning_rate or training.per_sample_gradients:
        raise ConfigurationError(
            f"{path}: parts that learn against each other have no common loss that falls; write validation_share = 0"
            " and a learning_rate in [training], and no per_sample_gradients"
        )
    if training.correction != "off":
        raise ConfigurationError(
            f"{path}: parts that train in turn have rates of their own, so that their gradients can't be read off how"
            " far all weights move; leave correction out of [training]"
        )
