"""The task as simulated mask helpers sum it: theirs are the keys in its plan."""

import msgspec

from bundle_runtime.bundle import Bundle, written
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.task_description import TaskDescription
from workbench.privacy_modes.modes import MASK_HELPERS, masked, usual_buffer, usual_masks
from workbench.simulation.masks.helper import mask_keys

FEWEST_DEVICES = 2
"""Of a sum: one device's would hide nothing."""


def with_usual_masks(bundle: Bundle, devices: int, buffer_size: int | None) -> Bundle:
    """A plain task's bundle with masks: cohorts of `buffer_size`, and of half as many at least.

    Raises:
        ConfigurationError: the task can't be summed behind masks, and why.
    """
    if devices < FEWEST_DEVICES:
        raise ConfigurationError(
            f"--privacy masks: a sum is of {FEWEST_DEVICES} devices at least; --devices is {devices}"
        )
    size = buffer_size or max(FEWEST_DEVICES, usual_buffer(devices))
    plan = usual_masks(mask_keys(MASK_HELPERS), max(FEWEST_DEVICES, size // 2))
    return _checked(bundle, masked(bundle.description, PrivacyPlan(masks=plan), size))


def with_simulated_helpers(bundle: Bundle, plan: MaskPlan) -> Bundle:
    """The bundle of a task with masks, whose helpers are simulated ones of the same names.

    Raises:
        ConfigurationError: its updates are encrypted besides.
    """
    task = bundle.description
    if plan.key_holder is not None or task.privacy is None:
        raise ConfigurationError(
            f"{task.task}: encryption for a key holder ({plan.key_holder}) is not simulated, which adds"
            " bytes and changes no sum (docs/secure-aggregation.md); export it without key_holder to simulate the rest"
        )
    helped = msgspec.structs.replace(plan, helpers=mask_keys(plan.helpers))
    privacy = msgspec.structs.replace(task.privacy, masks=helped)
    return _checked(bundle, msgspec.structs.replace(task, privacy=privacy))


def _checked(bundle: Bundle, task: TaskDescription) -> Bundle:
    text = written(task)
    return Bundle(parse_description(text, f"{task.task} as simulated"), bundle.files | {DESCRIPTION_FILE: text})
