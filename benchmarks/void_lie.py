"""What a coordinator learns that calls a cohort void, has its sum all the same, and asks for a sum without one device.

    python -m benchmarks.void_lie [--devices 10 20 40] [--seeds 3]

Devices of the shipped digits train from one version. From the sums of two cohorts the coordinator guesses the update of
the device that the second lacks; what is shown is the cosine between guess and update, the mean over devices. `void`:
devices have taken the first update back and send it with what they learn then; of this the guess subtracts the half.
`same_version`: no lie, they train from the same version again. `next_version`: no lie, the first sum has made one.
`nothing`: the first sum alone. All of it without noise, masks or rounding, which take nothing away from sums.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import bundle_paths
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.round import learn
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from workbench.data.digits import split_digits

BUNDLE = Path("models/digits/bundle")
ROUNDS_BEFORE = 5
"""The attack begins with a version that has learned something."""


def cosine(guess: FloatVector, truth: FloatVector) -> float:
    """1 is the update itself but for its length, 0 nothing of it."""
    return float(guess @ truth / (np.linalg.norm(guess) * np.linalg.norm(truth)))


def guessed(first: FloatVector, second: FloatVector) -> dict[str, list[float]]:
    """The cosines for each device: `first` and `second` are changes, f32[devices, P], from one version, the second of
    another round.
    """
    total, later = first.sum(axis=0), second.sum(axis=0)
    found: dict[str, list[float]] = {"void": [], "same_version": [], "nothing": []}
    for own, again in zip(first, second, strict=True):
        without = (total - own) + (later - again)
        found["void"].append(cosine(total - without / 2, own))
        found["same_version"].append(cosine(total - (later - again), own))
        found["nothing"].append(cosine(total, own))
    return found


def run(devices: int, seed: int) -> dict[str, float]:
    """One fleet."""
    bundle = load_bundle(BUNDLE)
    task = bundle.description
    engine = OnnxStepEngine.of_task(task, bundle_paths(BUNDLE, task))
    data = split_digits(devices, np.random.default_rng((seed, 1)), "--devices")
    weights = read_weights(bundle.files[WEIGHTS_FILE], task.parameters)

    def changes(start: FloatVector, number: int) -> FloatVector:
        return np.stack([learn(engine, start, part, task, seed=number).weights - start for part in data.parts])

    for number in range(ROUNDS_BEFORE):
        weights = weights + changes(weights, number).mean(axis=0)
    first, second = changes(weights, ROUNDS_BEFORE), changes(weights, ROUNDS_BEFORE + 1)
    found = guessed(first, second)
    moved = changes(weights + first.mean(axis=0), ROUNDS_BEFORE + 1)
    found["next_version"] = guessed(first, moved)["same_version"]
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()}


def main() -> None:
    """Print a line for each number of devices, then all of them as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = {devices: _over_seeds(devices, range(options.seeds)) for devices in options.devices}
    print(json.dumps({"benchmark": "void_lie", "seeds": options.seeds, "cosines": found}))


def _over_seeds(devices: int, seeds: Sequence[int]) -> dict[str, float]:
    rows = [run(devices, seed) for seed in seeds]
    means = {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]}
    print(json.dumps({"devices": devices} | means), flush=True)
    return means


if __name__ == "__main__":
    main()
