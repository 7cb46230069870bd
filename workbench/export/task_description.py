"""`task.json`: what a recipe says of its task, and what its export has found."""

from collections.abc import Mapping

from msgspec import structs
from onnx import ModelProto

from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.privacy.device_privacy import with_device_noise
from fleet_protocol.privacy.mask_plan import with_noise_of_shares
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import with_noise
from fleet_protocol.task_description import BUNDLE_FORMAT, BackboneSchema, OnnxVersion, TaskDescription
from workbench.export.backbone.backbone import Split
from workbench.export.blocks.division import Division
from workbench.export.blocks.split_task import split_plan
from workbench.export.recipe.recipe import Recipe
from workbench.recipe_folder import TASK_FILE


def described(
    recipe: Recipe,
    models: Mapping[str, ModelProto],
    files: Mapping[str, bytes],
    *,
    halves: Split | None = None,
    division: Division | None = None,
) -> TaskDescription:
    """The description of a bundle of these `files`, those of its graphs among them as `models`.

    Raises:
        ConfigurationError: a block or a cut of the task's `split` can't be.
    """
    task = TaskDescription(
        format=BUNDLE_FORMAT,
        task=recipe.task.task,
        title=recipe.task.title,
        input=recipe.given.input if recipe.given else recipe.task.input,
        label=recipe.task.label,
        parameters=division.parameters if division else recipe.parameters,
        training=recipe.task.training,
        update=recipe.task.update,
        aggregation=recipe.task.aggregation,
        downlink=recipe.task.published,
        sending=recipe.task.sending,
        files={name: blob_hash(content) for name, content in files.items()},
        backbone=BackboneSchema(behind.feature_shape) if (behind := halves or recipe.given) else None,
        onnx_versions={name: _version(model) for name, model in models.items()},
        versions_from=recipe.task.payload_kind,
        scaling=recipe.scaling,
        inputs=recipe.task.inputs,
        heads=recipe.task.each_label if recipe.task.heads else {},
        readings=recipe.task.readings,
        split=split_plan(division) if division else None,
        solved_head=recipe.task.solved_head,
        prompts=recipe.task.prompts,
        clusters=recipe.task.clusters,
        drawing=recipe.task.drawing,
        personal=recipe.task.personal,
        selection=recipe.task.selection,
        posterior=recipe.task.posterior,
        gossip=recipe.task.gossip,
    )
    return structs.replace(task, privacy=_privacy(recipe, task))


def _privacy(recipe: Recipe, task: TaskDescription) -> PrivacyPlan | None:
    """As task.toml has it, with the noise that follows."""
    plan = recipe.task.privacy
    if plan is None or plan == PrivacyPlan():
        return None
    name = str(recipe.folder / TASK_FILE)
    samples = with_noise(plan.samples, recipe.task.training.steps, name) if plan.samples else None
    devices = with_device_noise(plan.devices, name) if plan.devices else None
    masks = with_noise_of_shares(plan.masks, task.trained_count, name) if plan.masks else None
    return PrivacyPlan(samples, masks, devices)


def _version(model: ModelProto) -> OnnxVersion:
    """A checked model has one entry for ONNX's own operators."""
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return OnnxVersion(model.ir_version, opset)
