"""What masks cost in accuracy: the shipped digits, the same fleet three times, each with its own residuals.

    python -m benchmarks.masked_accuracy [--devices 20] [--rounds 60] [--bits 8] [--seeds 3]

`masked`: every update is rounded, masked, and summed by three mask helpers and a coordinator, all in this process; each
sum is compared with that of the levels. `plain`: the same rounding with other draws, nothing masked, and the mean of
what devices send. `float32`: nothing is rounded. A third of the devices, drawn anew in each round, is not there.
Accuracy is that of samples which no device has, averaged over the last versions.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nacl.utils import random as random_bytes

from benchmarks.secure_aggregation import key_of
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.round import learn
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import SparseUpdate, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.kinds import SumRequest
from secure_aggregation.coordinator import admitted, proposed_set, unmasked, weighted_mean
from secure_aggregation.device import masked_round
from secure_aggregation.helper.claims import ClaimsInMemory
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy
from secure_aggregation.manifest import field_of
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import shared_positions
from secure_aggregation.signatures import signed
from workbench.data.digits import split_digits

BUNDLE = Path("models/digits/bundle")
CLIP = 0.2
HELPERS = tuple(f"mask-{number}" for number in range(3))
LAST_VERSIONS = 5
AWAY = 1 / 3
WAYS = ("masked", "plain", "float32")
RULE = AggregationPlan(strategy="fedbuff", staleness_weighting="constant")
OWNER = HelperPolicy(fewest_devices=2, fewest_per_weight=2)


@dataclass(slots=True)
class Fleet:
    """Mask helpers of one run, and what they need of its devices."""

    devices: tuple[str, ...]
    parameters: int
    bits: int
    generator: np.random.Generator
    inexact: int = 0
    helpers: list[MaskHelper] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Let helpers know the devices."""
        roster = {name: key_of(name).verify_key for name in self.devices}
        coordinator = key_of("coordinator").verify_key
        self.helpers = [MaskHelper(key_of(name), coordinator, roster, OWNER, ClaimsInMemory()) for name in HELPERS]

    def manifest(self, number: int) -> CohortManifest:
        """The cohort of a round."""
        return CohortManifest(
            number=number, task="digits", generation=0, oldest_version=0, newest_version=number,
            parameters=self.parameters, entries=self.parameters, positions="dense", positions_seed=0, top_positions=b"",
            clip=CLIP, bits=self.bits, weights=(1,),
            fewest_devices=2, most_devices=len(self.devices), fewest_per_weight=2,
            helpers=tuple(bytes(key_of(name).verify_key) for name in HELPERS), colluding=len(HELPERS) - 1,
        )  # fmt: skip

    def masked(self, number: int, offered: dict[str, FloatVector]) -> tuple[FloatVector, dict[str, FloatVector]]:
        """The mean that the coordinator finds, and what each device has sent of what it offered."""
        manifest, key = self.manifest(number), key_of("coordinator")
        rounds = {
            name: masked_round(
                manifest, shared_positions(manifest), vector, key=key_of(name), device=name, sequence=number,
                base_version=number, random_bytes=random_bytes,
            )
            for name, vector in offered.items()
        }  # fmt: skip
        taken = {name: admitted(manifest, r.update, name, key_of(name).verify_key) for name, r in rounds.items()}
        cohort_set = proposed_set(manifest, [(each, 1) for each in taken.values()])
        seeds = tuple(taken[member.device].seeds for member in cohort_set.members)
        request = SumRequest(signed(key, manifest), signed(key, cohort_set), seeds)
        total = unmasked(manifest, cohort_set, taken, [helper.answer(request, ()) for helper in self.helpers])
        self.inexact += not (total.levels == sum(each.levels for each in rounds.values())).all()
        return weighted_mean(manifest, total), {name: each.sent.values for name, each in rounds.items()}

    def plain(self, number: int, offered: dict[str, FloatVector]) -> tuple[FloatVector, dict[str, FloatVector]]:
        """The same without masks."""
        numbers = field_of(self.manifest(number))
        sent = {
            name: numbers.values(
                numbers.rounded(vector, self.generator.integers(0, 2**32, vector.size, dtype=np.uint32))
            )
            for name, vector in offered.items()
        }
        return mean(list(sent.values())), sent

    def float32(self, _: int, offered: dict[str, FloatVector]) -> tuple[FloatVector, dict[str, FloatVector]]:
        """The same, all of it."""
        return mean(list(offered.values())), offered


def mean(vectors: list[FloatVector]) -> FloatVector:
    """Of float32[N], added up in float64."""
    return np.asarray(np.mean(np.stack(vectors), axis=0, dtype=np.float64)).astype(np.float32)


def run(way: str, devices: int, rounds: int, bits: int, seed: int) -> dict[str, float | int]:
    """The accuracy at the end of one run, and sums that were not those of the levels."""
    bundle = load_bundle(BUNDLE)
    task, files = bundle.description, bundle_paths(BUNDLE, bundle.description)
    engine, runner = OnnxStepEngine.of_task(task, files), BundleRunner(task, files)
    data = split_digits(devices, np.random.default_rng((seed, 1)), "--devices")
    names = tuple(f"pi-{number:04}" for number in range(devices))
    state = initial_state(read_weights(bundle.files[WEIGHTS_FILE], task.parameters), RULE)
    residuals = {name: np.zeros_like(state.weights) for name in names}
    fleet = Fleet(names, state.weights.size, bits, np.random.default_rng((seed, 2)))
    mean_of: Callable[..., tuple[FloatVector, dict[str, FloatVector]]] = getattr(fleet, way)
    away, accuracies = np.random.default_rng((seed, 3)), []
    for number in range(rounds):
        there = np.sort(away.permutation(devices)[round(AWAY * devices) :])
        offered = {}
        for at in there:
            learned = learn(engine, state.weights, data.parts[at], task, seed=number).weights
            offered[names[at]] = residuals[names[at]] + learned - state.weights
        found, sent = mean_of(number, offered)
        residuals |= {name: offered[name] - sent[name] for name in offered}
        update = SparseUpdate(np.arange(found.size, dtype=np.int64), found)
        state = next_state(state, [BufferedUpdate("", update, len(offered), state.version, 0)], RULE)
        if number >= rounds - LAST_VERSIONS:
            accuracies.append(runner.evaluate(state.weights, data.held_out).accuracy or 0.0)
    return {"accuracy": round(float(np.mean(accuracies)), 4), "inexact_sums": fleet.inexact}


def main() -> None:
    """Print a line for each seed, then all of them as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = []
    for seed in range(options.seeds):
        found.append({way: run(way, options.devices, options.rounds, options.bits, seed) for way in WAYS})
        print(json.dumps({"seed": seed} | found[-1]), flush=True)
    means = {way: round(float(np.mean([each[way]["accuracy"] for each in found])), 4) for way in WAYS}
    settings = {"devices": options.devices, "rounds": options.rounds, "bits": options.bits, "clip": CLIP, "away": AWAY}
    print(json.dumps({"benchmark": "masked_accuracy", **settings, "seeds": found, "mean_accuracy": means}))


if __name__ == "__main__":
    main()
