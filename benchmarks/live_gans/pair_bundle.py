"""The bundle of `models/mnist_gan` as the live fleet trains it."""

import shutil
from pathlib import Path

import msgspec

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from workbench.recipe_folder import find_recipe


def write_short_pair(folder: Path, *, steps: int, buffer_size: int) -> Bundle:
    """Into `folder`, with rounds of so many steps, and that many updates of devices to a version."""
    shutil.copytree(find_recipe("mnist_gan") / "bundle", folder)
    description = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    training = msgspec.structs.replace(description.training, steps=steps, epochs_per_round=0, maximum_epochs=0)
    aggregation = msgspec.structs.replace(description.aggregation, buffer_size=buffer_size)
    changed = msgspec.structs.replace(description, training=training, aggregation=aggregation)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return load_bundle(folder)
