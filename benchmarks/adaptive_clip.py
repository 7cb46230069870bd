"""What a clip that follows a quantile of the norms is worth: a fixed clip that is too small, right or too large, and
one that follows, from the same three.

    python -m benchmarks.adaptive_clip --data ../shared/data [--epsilon 8] [--clips 0.05 0.5 5] [--seeds 2]

Network, plan and learning rate are those of `benchmarks.device_privacy_utility`, and devices are like the ones there;
quantile and rate are the task's defaults, those of Andrew et al. 2021. No data chose them. All rows keep the same
epsilon. Each version is made of 100 devices drawn anew, of those whose turn it is; what they learn, the clip and the
noise are as shipped, without messages between. t10k shows the result.
"""

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.device_privacy_utility import AT_MOST, BETWEEN, CONCENTRATION, DEVICES, FEWEST, VERSIONS, buffer_of
from benchmarks.private_fleets import LAST_SCORES, RECIPE, Split, mnist_split
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.device_privacy import clipped_sum
from broker_coordinator.aggregation.device_privacy.version_noise import NO_NOISE, SEED_BYTES
from broker_coordinator.aggregation.server_step import initial_state
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.round import learn
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from workbench.data.partition import dirichlet_parts
from workbench.export.bundle_writer import export_bundle

CLIPS = (0.05, 0.5, 5.0)
LARGEST = 10.0
"""The largest that a clip becomes is so many times the largest that one begins with."""


def with_clip(bundle: Bundle, epsilon: float, clip: float, at_most: float | None) -> Bundle:
    """The bundle with this first clip, which follows norms up to `at_most`, or is fixed without it."""
    plan = DevicePrivacy(
        epsilon=epsilon,
        clip=clip,
        versions=VERSIONS,
        at_most=AT_MOST,
        versions_between=BETWEEN,
        adaptive_clip=None if at_most is None else AdaptiveClip(at_most),
    )
    privacy = PrivacyPlan(devices=with_device_noise(plan, RECIPE.name))
    rule = {"buffer_size": buffer_of(DEVICES), "staleness_weighting": "constant"}
    aggregation = msgspec.structs.replace(bundle.description.aggregation, **rule)
    return replace(
        bundle, description=msgspec.structs.replace(bundle.description, aggregation=aggregation, privacy=privacy)
    )


def turns(generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The devices of each version: none counts more often, or sooner again, than the plan allows."""
    counted, last = np.zeros(DEVICES, int), np.full(DEVICES, -BETWEEN)
    for version in range(VERSIONS):
        ready = np.flatnonzero((counted < AT_MOST) & (version - last >= BETWEEN))
        drawn = generator.choice(ready, buffer_of(DEVICES), replace=False)
        counted[drawn] += 1
        last[drawn] = version
        yield drawn


def shares_of(split: Split, seed: int) -> list[Samples]:
    """What each device has. Of so many devices, some always draw too few: the first draw is evened out."""
    generator, labels = np.random.default_rng((seed, 1)), split.pooled.labels.astype(np.int64)
    parts = dirichlet_parts(labels, DEVICES, generator, fewest=FEWEST, concentration=CONCENTRATION, attempts=1)
    return [split.pooled.take(part) for part in parts]


def run(folder: Path, bundle: Bundle, shares: Sequence[Samples], shown_on: Samples, seed: int) -> dict[str, object]:
    """The accuracy of the last versions of one run, and the clips and the median norms of its versions."""
    task, plan = bundle.description, bundle.description.device_privacy
    assert plan is not None
    files = bundle_paths(folder, task)
    engine, runner = OnnxStepEngine.of_task(task, files), BundleRunner(task, files)
    drawn, seeds = (np.random.default_rng((seed, stream)) for stream in (2, 3))
    state, series = initial_state(bundle.first_version(), task.aggregation), NO_NOISE
    clips, norms, scores = [], [], []
    for number, devices in enumerate(turns(drawn)):
        clips.append(plan.clip if state.clip is None else state.clip)
        learned = [learn(engine, state.weights, shares[at], task, seed=number) for at in devices]
        deltas = [SparseUpdate(np.arange(state.weights.size), each.weights - state.weights) for each in learned]
        norms.append(median(delta.norm() for delta in deltas))
        series = series.after(seeds.bytes(SEED_BYTES), plan)
        updates = [BufferedUpdate("", delta, 1, number, 0) for delta in deltas]
        total = clipped_sum.partial(
            state, [*updates, *([series.noise] if series.noise else [])], plan, buffer_of(DEVICES)
        )
        state = clipped_sum.finish(state, total, task, plan)
        if number >= VERSIONS - LAST_SCORES:
            scores.append(runner.evaluate(state.weights, shown_on).accuracy or 0.0)
    shown = range(0, VERSIONS, 5)
    found = {
        "seed": seed,
        "clip": plan.clip,
        "follows": plan.adaptive_clip is not None,
        "right": round(fmean(scores), 4),
        "clips": [round(clips[at], 3) for at in shown],
        "median_norms": [round(norms[at], 3) if math.isfinite(norms[at]) else None for at in shown],
    }
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    """Print each run as it is found, and all of them as one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--clips", type=float, nargs="*", default=list(CLIPS))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    split = mnist_split(options.data)
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_bundle(RECIPE, folder)
        plain, largest = load_bundle(folder), LARGEST * max(options.clips)
        for seed in range(1, options.seeds + 1):
            shares = shares_of(split, seed)
            for clip, at_most in itertools.product(options.clips, (None, largest)):
                bundle = with_clip(plain, options.epsilon, clip, at_most)
                runs.append(run(folder, bundle, shares, split.shown_on, seed))
    fleet = {"devices": DEVICES, "versions": VERSIONS, "buffer_size": buffer_of(DEVICES)}
    plan = {"at_most": AT_MOST, "versions_between": BETWEEN, "epsilon": options.epsilon, "delta": 1e-5}
    print(json.dumps(fleet | plan | {"runs": runs}))


if __name__ == "__main__":
    main()
