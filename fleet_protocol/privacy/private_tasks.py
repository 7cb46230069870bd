"""Whether the rest of a task keeps what `[privacy.samples]` promises: nothing else may depend on samples. Pure."""

from typing import TYPE_CHECKING, Final

from fleet_protocol.bundle_files import SAMPLE_GRADIENTS_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.sample_privacy import SamplePrivacy, check_noise

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

WHY: Final = {
    "training.validation_share": "whether a round is sent would depend on samples without noise",
    "training.maximum_epochs": "the samples' budget says when they are spent",
    "training.epochs_per_round": "each round has `steps` steps, which are what is counted",
    "training.gradient_clip": "privacy.samples.clip is the limit of each sample's gradient",
    "training.per_sample_gradients": "they are taken anyway",
}
"""Of the settings that have to be 0, or false."""


def check_private_task(task: "TaskDescription", plan: SamplePrivacy, name: str) -> None:
    """Check a task that promises sample-level privacy.

    Raises:
        ConfigurationError: something else that leaves a device would tell of its samples without noise.
    """
    check_noise(plan, task.training.steps, name)
    set_ = [f"{key} = 0 ({why})" for key, why in WHY.items() if getattr(task.training, key.partition(".")[2])]
    if set_:
        raise ConfigurationError(f"{name}: [privacy.samples] needs other settings; write {'; '.join(set_)}")
    if task.statistics:
        raise ConfigurationError(
            f"{name}: [privacy.samples] needs layers that treat each sample by itself, and {task.statistics} values are"
            " running statistics over samples; take GroupNorm, or write batch_norm = 'frozen'"
        )
    if task.scaling.is_awaited:
        raise ConfigurationError(
            f"{name}: [privacy.samples] goes with a scale that is known: a fleet's is made of sums over samples without"
            " noise; write scaling.inputs = 'ranges' or 'off', and the same for scaling.targets"
        )
    if plan.owners_choose:
        _check_choice(task, name)
    other = {
        "split": task.split,
        "solved_head": task.solved_head,
        "prompts": task.prompts,
        "clusters": task.clusters,
    }
    if found := [table for table, value in other.items() if value is not None]:
        raise ConfigurationError(
            f"{name}: [{found[0]}] takes from a device what has no noise, so [privacy.samples] could not be kept; leave"
            " one of them out"
        )
    if SAMPLE_GRADIENTS_FILE not in task.files:
        raise ConfigurationError(f"{name}: [privacy.samples], but `files` lacks {SAMPLE_GRADIENTS_FILE}; export again")


def _check_choice(task: "TaskDescription", name: str) -> None:
    alike = [table for table in ("masks", "devices") if getattr(task.privacy, table) is not None]
    if alike:
        raise ConfigurationError(
            f"{name}: privacy.samples.owners_choose has updates count by their noise, and [privacy.{alike[0]}] has all"
            " count alike; leave one of them out"
        )
