"""A pair of which a test knows what it draws and what passes in its first step, whatever its latent numbers are."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load, save

from bundle_runtime.blocks import BlockRunner, Floats
from bundle_runtime.bundle import Bundle, written
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE, blob_hash
from fleet_protocol.codec.activations import pack_activations, unpack_rows
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.split_placement import Leg, legs_of
from tests.support.plaintext import weights_of_first_version

FOLDER = Path(__file__).parent / "small_pair" / "bundle"
"""`edgeflock export tests/support/small_pair --out tests/support/small_pair/bundle`."""
SIDE, LATENT = 12, 4
CUTS = ("g3-d3", "g3h-d3h")
"""That leave most to the device, and least."""


def drawn_picture() -> Floats:
    """f32[144] of brightness 0 to 1: what the pair draws as long as its generator has not been trained."""
    return np.random.default_rng(8).uniform(0.05, 0.95, SIDE * SIDE).astype(np.float32)


def copy_known_pair(folder: Path) -> Bundle:
    """The small pair with one step a round and no second version in a test's time, and with weights, sent as they are,
    by which it draws one picture: nothing depends on the latent numbers, and the last block is its bias alone.
    """
    shutil.copytree(FOLDER, folder)
    bundle = load_bundle(folder)
    weights = load(bundle.weights)
    weights["generator.block1.linear.weight"][:, :LATENT] = 0
    weights["generator.block4.0.weight"][:] = 0
    picture = drawn_picture().astype(np.float64)
    weights["generator.block4.0.bias"][:] = np.log(picture / (1 - picture))
    data = save(weights)
    task = bundle.description
    changed = msgspec.structs.replace(
        task,
        files=dict(task.files) | {WEIGHTS_FILE: blob_hash(data)},
        training=msgspec.structs.replace(task.training, steps=1),
        aggregation=msgspec.structs.replace(task.aggregation, buffer_size=100),
        downlink=DownlinkPlan("exact"),
    )
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / DESCRIPTION_FILE).write_bytes(written(changed))
    return load_bundle(folder)


def crossings(bundle: Bundle, cut: str, inputs: Floats) -> dict[str, Floats]:
    """What passes between a device and its helper on the way forward of the first step, of samples f32[N, 145]: by who
    sends it and the point, f32[N, ...] as it is packed.
    """
    plan = bundle.description.split
    assert plan is not None
    runner = BlockRunner(bundle.description, bundle.files, range(len(plan.blocks) - 1))
    weights = weights_of_first_version(bundle)
    passed: dict[str, Floats] = {}

    def through(leg: Leg, values: Floats) -> Floats:
        for block in leg.blocks:
            values = runner.forward(block, runner.weights_of(block, weights), values, seed=0, raw=inputs)
        return values

    values = inputs
    for leg in legs_of(plan, plan.cut(cut)):
        if leg.at_helper:
            passed[f"device, {plan.blocks[leg.first - 1].point}"] = values
            values = through(leg, _received(values, bundle))
            passed[f"helper, {plan.blocks[leg.end - 1].point}"] = values
            values = _received(values, bundle)
        else:
            values = through(leg, values)
    return passed


def _received(values: Floats, bundle: Bundle) -> Floats:
    """As the other side has them."""
    assert bundle.description.split is not None
    wire = bundle.description.split.activations
    return unpack_rows(pack_activations(values, wire), wire, len(values), values.shape[1:])
