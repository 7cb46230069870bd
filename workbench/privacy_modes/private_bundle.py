"""The bundle of a mode, in a folder of its own."""

import shutil
from pathlib import Path

from bundle_runtime.bundle import written
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.extras import missing_extra_named
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from workbench.privacy_modes.modes import Mode, with_devices_hidden, without_privacy
from workbench.recipe_folder import TASK_FILE

PROGRAM = "edgeflock"


def private_bundle(bundle: Path, mode: Mode, out: Path, devices: int, buffer_size: int | None = None) -> Path:
    """The folder of the bundle with this mode for so many devices: `bundle` itself where it has it, or `out`, which is
    made. For `masks` it is the plain task: whoever starts the helpers adds their keys.

    Raises:
        ConfigurationError: the task can't have the mode, and why.
    """
    task = load_bundle(bundle).description
    if mode == "samples":
        return bundle if task.sample_privacy else _with_samples_hidden(bundle, out)
    if mode == "devices":
        return _rewritten(bundle, with_devices_hidden(task, devices, buffer_size), out)
    return _rewritten(bundle, without_privacy(task), out)


def _rewritten(bundle: Path, task: TaskDescription, out: Path) -> Path:
    """The bundle's files under another description."""
    text = written(task)
    parse_description(text, f"{task.task} with --privacy")
    out.mkdir(parents=True)
    for name in task.files:
        shutil.copyfile(bundle / name, out / name)
    (out / DESCRIPTION_FILE).write_bytes(text)
    return out


def _with_samples_hidden(bundle: Path, out: Path) -> Path:
    """The bundle exported anew from its recipe: steps with noise need a graph that others lack."""
    recipe = bundle.parent
    if not (recipe / TASK_FILE).is_file():
        raise ConfigurationError(
            f"{bundle}: --privacy samples needs a graph of each sample's gradient, which this bundle lacks, and there"
            f" is no {TASK_FILE} beside it to export one from; write [privacy.samples] into its recipe and export that"
        )
    with missing_extra_named(PROGRAM):
        from workbench.privacy_modes.noised_recipe import export_noised  # noqa: PLC0415 - needs torch
    export_noised(recipe, out)
    return out
