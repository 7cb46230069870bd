"""What each mode changes of a task: none of these settings is chosen by data. Pure."""

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from fleet_protocol.aggregation_plan import USED_BY
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.mask_plan import MASKED_UPDATE_NAME, MaskPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.sending_plan import ALWAYS
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.without_effect import with_used

Mode = Literal["none", "samples", "devices", "masks"]

PRIVACY_HELP: Final = "What is hidden from whom, with settings of its own: docs/privacy.md."
EPSILON: Final = 8.0
DELTA: Final = 1e-5
SAMPLES: Final = SamplePrivacy(epsilon=EPSILON, delta=DELTA, sampling_rate=0.1, clip=1.0, rounds=20)
MOST_STEPS: Final = 10
"""Of a round with privacy of samples: each step costs."""
VERSIONS: Final = 40
"""Planned, where versions hide each device."""
CLIP: Final = 0.5
SPARE: Final = 1.25
"""So many times as often as it is a device's turn on average, one may count."""
SHARE: Final = 0.1
FEWEST: Final = 10
"""Of a version: a tenth of the devices, at least ten of them or half of a small fleet."""

MASK_HELPERS: Final = ("mask-a", "mask-b", "mask-c")
COLLUDING: Final = 1
LONGEST_ENTRY: Final = 0.2
"""Of an update behind masks."""


def without_privacy(task: TaskDescription) -> TaskDescription:
    """The task as anybody sees it."""
    versions_from = "update" if task.masks else task.versions_from
    return msgspec.structs.replace(task, privacy=None, versions_from=versions_from)


def usual_buffer(devices: int) -> int:
    """How many of so many devices a version is of."""
    return max(1, min(max(FEWEST, round(SHARE * devices)), devices // 2))


def with_devices_hidden(task: TaskDescription, devices: int, buffer_size: int | None) -> TaskDescription:
    """The task whose versions hide each of so many devices, planned for `VERSIONS` versions of `buffer_size`.

    Raises:
        ConfigurationError: no noise keeps that.
    """
    size = buffer_size or usual_buffer(devices)
    turn = devices / size
    plan = DevicePrivacy(
        epsilon=EPSILON,
        delta=DELTA,
        clip=CLIP,
        versions=VERSIONS,
        at_most=min(VERSIONS, math.ceil(SPARE * VERSIONS / turn)),
        versions_between=max(1, math.floor(turn / SPARE)),
    )
    return msgspec.structs.replace(
        _of_alike_updates(task, size),
        training=msgspec.structs.replace(task.training, validation_share=0.0),
        sending=ALWAYS,
        privacy=PrivacyPlan(devices=with_device_noise(plan, f"{task.task} as --privacy devices has it")),
    )


def masked(task: TaskDescription, plan: PrivacyPlan, devices: int) -> TaskDescription:
    """The task whose updates are summed behind the masks of a plan, those of all `devices` at most."""
    return msgspec.structs.replace(_of_alike_updates(task, devices), privacy=plan, versions_from=MASKED_UPDATE_NAME)


def usual_masks(keys: Mapping[str, str], fewest_devices: int) -> MaskPlan:
    """Masks for the helpers with these keys, by their names."""
    return MaskPlan(helpers=dict(keys), clip=LONGEST_ENTRY, colluding=COLLUDING, fewest_devices=fewest_devices)


def _of_alike_updates(task: TaskDescription, buffer_size: int) -> TaskDescription:
    """The task whose versions are plain sums of so many updates, none of which weighs more."""
    changed = {"strategy": "fedbuff", "staleness_weighting": "constant", "norm_quantile_factor": 0.0}
    aggregation = msgspec.structs.replace(task.aggregation, buffer_size=buffer_size, norm_quantile=0.5, **changed)
    aggregation = with_used(aggregation, USED_BY)
    update = (
        task.update if task.update.feedback != "ef21" else msgspec.structs.replace(task.update, feedback="residual")
    )
    return msgspec.structs.replace(without_privacy(task), aggregation=aggregation, update=update)


def noised_training(training: TrainingPlan) -> TrainingPlan:
    """Rounds of few steps, in which nothing depends on samples without noise."""
    return msgspec.structs.replace(
        training,
        steps=min(training.steps, MOST_STEPS),
        validation_share=0.0,
        maximum_epochs=0,
        epochs_per_round=0,
        gradient_clip=0.0,
        per_sample_gradients=False,
    )
