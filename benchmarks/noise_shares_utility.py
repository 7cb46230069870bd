"""What noise that devices add behind their masks costs in accuracy, beside noise of a trusted coordinator.

    python -m benchmarks.noise_shares_utility --data ../shared/data [--epsilons 2 8] [--seeds 1 2]
    python -m benchmarks.noise_shares_utility --time

The fleet of `benchmarks.device_privacy_utility`: 1,000 devices with 20 digits each. Each of 40 cohorts has 70 to 100
devices, drawn anew, of those that have sent fewer than five updates. `shares`: they clip, round and noise their updates
as shipped, with as much noise as sums of 70 need, whoever comes. `coordinator`: the same devices, updates clipped to
the same norm, and independent Gaussian noise added once to each sum, at the same epsilon. `none`: neither clip nor
noise. Sums behind masks are exact, so levels are summed here without them. Nothing was chosen on data; t10k shows the
result. With `--time`, only what a device's noise takes is measured.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from nacl.utils import random as random_bytes

from benchmarks.device_privacy_utility import AT_MOST, BETWEEN, CLIP, CONCENTRATION, DEVICES, FEWEST, VERSIONS
from benchmarks.mnist import read_mnist
from benchmarks.private_fleets import RECIPE, Split
from benchmarks.secure_aggregation import key_of, least_ms
from benchmarks.zoo.samples.pictures import mnist20k
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.compression import remember
from edge_agent.training.masked_update import Cohort, masked
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.round import learn
from edge_agent.worker.contract import JoinedCohort
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import SparseUpdate, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.mask_plan import MaskPlan, with_noise_of_shares
from fleet_protocol.privacy.noise_shares import MOST_DEVIATION, NoiseShares, epsilon_told
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.coordinator import CohortSum, weighted_mean
from secure_aggregation.discrete_gaussian import discrete_gaussian
from secure_aggregation.messages import CohortManifest
from workbench.data.partition import dirichlet_parts
from workbench.export.bundle_writer import export_bundle

LEAST, MOST = 70, 100
ENTRY_CLIP, BITS = 0.05, 8
LAST_SCORES = 3
TIMES = 15
HELPERS = {f"mask-{number}": bytes(key_of(f"mask-{number}").verify_key) for number in range(2)}
RULE = AggregationPlan(strategy="fedbuff", staleness_weighting="constant", buffer_size=MOST)
WAYS = ("shares", "coordinator", "none")


@dataclass(slots=True)
class Fleet:
    """One run's devices, of which each keeps what it has not sent; `noise` draws the coordinator's."""

    task: TaskDescription
    plan: MaskPlan
    central: DevicePrivacy
    noise: np.random.Generator
    residuals: dict[int, bytes] = field(default_factory=dict)

    def shares(self, number: int, deltas: dict[int, FloatVector]) -> FloatVector:
        """The mean of noised levels."""
        plan, count = self.plan, self.task.trained_count
        manifest = CohortManifest(
            number=number, task=self.task.task, generation=0, oldest_version=0, newest_version=number, parameters=count,
            entries=count, positions="dense", positions_seed=0, top_positions=b"", clip=plan.clip, bits=plan.bits,
            weights=(1,), fewest_devices=LEAST, most_devices=MOST, fewest_per_weight=LEAST,
            helpers=tuple(HELPERS.values()), colluding=1, deviation=plan.deviation,
        )  # fmt: skip
        total = np.zeros(count, np.int64)
        for device, delta in deltas.items():
            joined = JoinedCohort(b"", b"", f"pi-{device}", number, number, 0, [], 2, 1)
            memory = remember(self.task, self.residuals.get(device, b""), (), 1)
            made, _ = masked(delta, memory, Cohort(joined, manifest, plan.noised_updates(count)), random_bytes)
            self.residuals[device] = memory.state()
            total += made.levels
        return weighted_mean(manifest, CohortSum(total, len(deltas), len(deltas)))

    def coordinator(self, _: int, deltas: dict[int, FloatVector]) -> FloatVector:
        """The mean of clipped updates, whose sum is noised once."""
        total = np.zeros(self.task.trained_count)
        for delta in deltas.values():
            total += delta * min(1.0, CLIP / float(np.linalg.norm(delta)))
        total += self.noise.normal(0, self.central.deviation_in_clips * CLIP, total.size)
        return (total / len(deltas)).astype(np.float32)

    def none(self, _: int, deltas: dict[int, FloatVector]) -> FloatVector:
        """The mean."""
        return np.asarray(np.mean(np.stack(list(deltas.values())), axis=0, dtype=np.float64)).astype(np.float32)


def plans(epsilon: float, parameters: int) -> tuple[MaskPlan, DevicePrivacy]:
    """The same promise, kept by devices and by the coordinator."""
    asked = {"epsilon": epsilon, "at_most": AT_MOST}
    shares = msgspec.convert({**asked, "norm": CLIP}, NoiseShares)
    keys = {name: key.hex() for name, key in HELPERS.items()}
    masks = MaskPlan(keys, ENTRY_CLIP, bits=BITS, fewest_devices=LEAST, noise=shares)
    central = {**asked, "clip": CLIP, "versions": VERSIONS, "versions_between": BETWEEN, "noise": "independent"}
    return (
        with_noise_of_shares(masks, parameters, RECIPE.name),
        with_device_noise(msgspec.convert(central, DevicePrivacy), RECIPE.name),
    )


def run(folder: Path, way: str, epsilon: float, split: Split, seed: int) -> float:
    """The accuracy of the last versions of one run."""
    bundle = load_bundle(folder)
    task = msgspec.structs.replace(bundle.description, privacy=None)
    files = bundle_paths(folder, task)
    engine, runner = OnnxStepEngine.of_task(task, files), BundleRunner(task, files)
    labels = split.pooled.labels.astype(np.int64)
    generator = np.random.default_rng((seed, 1))
    parts = dirichlet_parts(labels, DEVICES, generator, fewest=FEWEST, concentration=CONCENTRATION)
    state = initial_state(read_weights(bundle.files[WEIGHTS_FILE], task.parameters), RULE)
    fleet = Fleet(task, *plans(epsilon, task.trained_count), np.random.default_rng((seed, 2)))
    drawn, sent, scores = np.random.default_rng((seed, 3)), np.zeros(DEVICES, int), []
    for number in range(VERSIONS):
        there = drawn.choice(np.flatnonzero(sent < AT_MOST), drawn.integers(LEAST, MOST, endpoint=True), replace=False)
        sent[there] += 1
        deltas = {
            int(at): learn(engine, state.weights, split.pooled.take(parts[at]), task, seed=number).weights
            - state.weights
            for at in there
        }
        mean = getattr(fleet, way)(number, deltas)
        update = SparseUpdate(np.arange(mean.size, dtype=np.int64), mean)
        state = next_state(state, [BufferedUpdate("", update, len(deltas), state.version, 0)], RULE)
        if number >= VERSIONS - LAST_SCORES:
            scores.append(runner.evaluate(state.weights, split.shown_on).accuracy or 0.0)
    return float(np.mean(scores))


def measured(folder: Path, way: str, epsilon: float | None, split: Split, seeds: list[int]) -> dict[str, object]:
    """One row of the result."""
    found = [round(run(folder, way, epsilon or 1.0, split, seed), 4) for seed in seeds]
    row: dict[str, object] = {"noise": way, "epsilon": epsilon, "right": found, "mean": round(float(np.mean(found)), 4)}
    if epsilon is not None and way == "shares":
        parameters = load_bundle(folder).description.trained_count
        plan, _ = plans(epsilon, parameters)
        updates = plan.noised_updates(parameters)
        if updates is not None and plan.noise is not None:
            told = epsilon_told([updates.taken(AT_MOST)], plan.noise.delta)
            row |= {"deviation": plan.deviation, "width": plan.width(MOST), "epsilon_told": round(told, 3)}
    if epsilon is not None and way == "coordinator":
        _, central = plans(epsilon, 1)
        row |= {"epsilon_told": round(central.epsilon_after(VERSIONS), 3)}
    print(json.dumps(row), flush=True)
    return row


def milliseconds() -> list[dict[str, object]]:
    """The least processor time of drawing the noise of one update."""
    rows: list[dict[str, object]] = []
    for entries in (6_634, 50_890):
        for deviation in (3, 200, MOST_DEVIATION):
            least, _ = least_ms(TIMES, lambda: discrete_gaussian(entries, deviation, random_bytes))  # noqa: B023
            rows.append({"entries": entries, "deviation": deviation, "milliseconds": least})
    return rows


def main() -> None:
    """Print a row for each epsilon and kind of noise as it is found, and all of them as one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--epsilons", type=float, nargs="*", default=[2.0, 8.0])
    parser.add_argument("--time", action="store_true", help="measure what a device's noise takes, and nothing else")
    options = parser.parse_args()
    if options.time:
        print(json.dumps(milliseconds()))
        return
    everything, digits = mnist20k(options.data), read_mnist(options.data)
    flat = Samples(everything.inputs.reshape(len(everything), -1), everything.labels)
    split = Split(flat, Samples(digits.images.reshape(len(digits.labels), -1), digits.labels))
    contenders = [(way, epsilon) for epsilon in options.epsilons for way in WAYS[:-1]]
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        rows = [measured(Path(folder), way, epsilon, split, options.seeds) for way, epsilon in contenders]
        rows.append(measured(Path(folder), WAYS[-1], None, split, options.seeds))
    settings = {"devices": DEVICES, "versions": VERSIONS, "cohort": [LEAST, MOST], "at_most": AT_MOST, "norm": CLIP}
    print(json.dumps({**settings, "clip": ENTRY_CLIP, "bits": BITS, "delta": 1e-5, "rows": rows}))


if __name__ == "__main__":
    main()
