"""Which entries a cohort should send: the shipped digits, the same fleet once with each rule, at equal bytes.

    python -m benchmarks.masked_positions [--devices 20] [--rounds 60] [--keep 0.13] [--bits 8] [--seeds 3]
                                          [--momentum 0]

`random` and `momentum`: a share `--keep` of the entries, the same for all devices of a round, rounded as behind masks;
an entry takes the bits of a sum. `dense`: all entries, in as many fewer rounds as give the same bytes in all; `dense,
all rounds`: without that limit. `top_k`: what tasks without masks ship, each device's largest entries, ternary, as many
as fit the same bytes. Bytes are those of values, and for `top_k` of positions: what surrounds them is left out, boxes
and names as well. Sums behind masks are exact, so levels are summed here without them. A third of the devices, drawn
anew in each round, is not there; each keeps what it has not sent. With `--momentum`, the server's, its learning rate is
lowered as much. Accuracy is that of samples which no device has, averaged over the last versions.
"""

import argparse
import json
from dataclasses import dataclass, field

import msgspec
import numpy as np

from benchmarks.masked_accuracy import AWAY, BUNDLE, CLIP, LAST_VERSIONS, mean
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.round import learn
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import EncodedUpdate, SparseUpdate, encode_update, read_weights
from fleet_protocol.codec.selection import kept_count
from fleet_protocol.codec.sparse import FloatVector, Shapes
from fleet_protocol.update_plan import UpdatePlan
from secure_aggregation.manifest import field_of
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import shared_positions, top_positions
from workbench.data.digits import split_digits

WAYS = ("dense", "random", "momentum", "top_k", "dense, all rounds")
HALVINGS = 12
"""Of the share of entries that `top_k` sends, until it fits the bytes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one run."""

    devices: int
    rounds: int
    keep: float
    bits: int
    momentum: float


@dataclass(slots=True)
class Sending:
    """How the devices of one run send a round's updates, and the bytes of values of one update, each time."""

    way: str
    manifest: CohortManifest
    shapes: Shapes
    generator: np.random.Generator
    update_bytes: list[int] = field(default_factory=list)

    @property
    def budget(self) -> int:
        """Bytes of one masked update's values."""
        return (self.manifest.entries * field_of(self.manifest).width + 7) // 8

    def round(self, number: int, state: ServerState, offered: dict[str, FloatVector]) -> dict[str, FloatVector]:
        """What each device sends of what it offers, float32[parameters]."""
        if self.way == "top_k":
            return {name: self._largest(vector) for name, vector in offered.items()}
        manifest = msgspec.structs.replace(self.manifest, number=number, positions_seed=number)
        if manifest.positions == "momentum":
            top = top_positions(state.moments[0], manifest.entries)
            manifest = msgspec.structs.replace(manifest, top_positions=top)
        self.update_bytes.append(self.budget)
        positions, numbers = shared_positions(manifest), field_of(manifest)
        sent = {}
        for name, vector in offered.items():
            draws = self.generator.integers(0, 2**32, positions.size, dtype=np.uint32)
            sent[name] = np.zeros_like(vector)
            sent[name][positions] = numbers.values(numbers.rounded(vector[positions], draws))
        return sent

    def _largest(self, vector: FloatVector) -> FloatVector:
        """As many of the largest entries as fit."""
        low, high, best = 0.0, 1.0, self._encoded(vector, 1 / vector.size)
        for _ in range(HALVINGS):
            keep = (low + high) / 2
            made = self._encoded(vector, keep)
            if len(made.packed) <= self.budget:
                low, best = keep, made
            else:
                high = keep
        self.update_bytes.append(len(best.packed))
        sent = np.zeros_like(vector)
        best.sent.add_to(sent)
        return sent

    def _encoded(self, vector: FloatVector, keep: float) -> EncodedUpdate:
        return encode_update(vector, self.shapes, UpdatePlan(keep), self.generator)


def run(way: str, settings: Settings, seed: int) -> dict[str, float]:
    """The accuracy at the end of one run, its rounds, and what each device has sent."""
    bundle = load_bundle(BUNDLE)
    task, files = bundle.description, bundle_paths(BUNDLE, bundle.description)
    engine, runner = OnnxStepEngine.of_task(task, files), BundleRunner(task, files)
    data = split_digits(settings.devices, np.random.default_rng((seed, 1)), "--devices")
    names = tuple(f"pi-{number:04}" for number in range(settings.devices))
    rule = AggregationPlan(
        strategy="fedbuff",
        staleness_weighting="constant",
        server_momentum=settings.momentum,
        server_learning_rate=1 - settings.momentum,
    )
    state = initial_state(read_weights(bundle.files[WEIGHTS_FILE], task.parameters), rule)
    residuals = {name: np.zeros_like(state.weights) for name in names}
    sending = Sending(
        way, manifest_of(way, settings, state.weights.size), task.shapes, np.random.default_rng((seed, 2))
    )
    rounds = rounds_of(way, settings, state.weights.size)
    away, accuracies = np.random.default_rng((seed, 3)), []
    for number in range(rounds):
        there = np.sort(away.permutation(settings.devices)[round(AWAY * settings.devices) :])
        offered = {}
        for at in there:
            learned = learn(engine, state.weights, data.parts[at], task, seed=number).weights
            offered[names[at]] = residuals[names[at]] + learned - state.weights
        sent = sending.round(number, state, offered)
        residuals |= {name: offered[name] - sent[name] for name in offered}
        found = mean(list(sent.values()))
        update = SparseUpdate(np.arange(found.size, dtype=np.int64), found)
        state = next_state(state, [BufferedUpdate("", update, len(offered), state.version, 0)], rule)
        if number >= rounds - LAST_VERSIONS:
            accuracies.append(runner.evaluate(state.weights, data.held_out).accuracy or 0.0)
    return {
        "accuracy": round(float(np.mean(accuracies)), 4),
        "rounds": rounds,
        "update_bytes": round(float(np.mean(sending.update_bytes))),
    }


def manifest_of(way: str, settings: Settings, parameters: int) -> CohortManifest:
    """The cohort of a round."""
    is_dense = way.startswith("dense")
    return CohortManifest(
        number=0, task="digits", generation=0, oldest_version=0, newest_version=0, parameters=parameters,
        entries=parameters if is_dense else kept_count(parameters, settings.keep),
        positions="dense" if is_dense else "momentum" if way == "momentum" else "random", positions_seed=0,
        top_positions=b"", clip=CLIP, bits=settings.bits, weights=(1,), fewest_devices=2,
        most_devices=settings.devices, fewest_per_weight=2, helpers=(bytes(32), bytes(32)), colluding=1,
    )  # fmt: skip


def rounds_of(way: str, settings: Settings, parameters: int) -> int:
    """As many as asked for; of dense updates, as many as take no more bytes."""
    if way != "dense":
        return settings.rounds
    return max(1, settings.rounds * kept_count(parameters, settings.keep) // parameters)


def main() -> None:
    """Print a line for each seed, then all of them as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--keep", type=float, default=0.13)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--momentum", type=float, default=0.0)
    options = parser.parse_args()
    settings = Settings(options.devices, options.rounds, options.keep, options.bits, options.momentum)
    found = []
    for seed in range(options.seeds):
        found.append({way: run(way, settings, seed) for way in WAYS})
        print(json.dumps({"seed": seed} | found[-1]), flush=True)
    means = {way: round(float(np.mean([each[way]["accuracy"] for each in found])), 4) for way in WAYS}
    told = {name: getattr(settings, name) for name in ("devices", "rounds", "keep", "bits", "momentum")}
    print(json.dumps({"benchmark": "masked_positions", **told, "clip": CLIP, "seeds": found, "mean_accuracy": means}))


if __name__ == "__main__":
    main()
