"""Bytes to accuracy of smaller models and of low-rank updates, against sparse ternary updates of the whole model:
`python -m benchmarks.fewer_bytes [--data ../shared/data/mnist] [--seeds 0 1] [--only NAME ...] [--quick]`.

Fleets as in `benchmarks.selection`: devices see unlike classes (Dirichlet 0.1), a tenth trains at any time. Every
contender trains the same recipe on the same samples, with what it says of `[compression]` (docs/model-compression.md)
or of updates, and with the learning rate that its export finds. `default` is the recipe; `sparser` sends 0.3 of what it
keeps. `pruned later` learns as `default` does for a quarter of its updates, and its model is then pruned and published
anew. The target is 95 % of the accuracy that `default` ends with; a fleet is there when the mean of five scores is.

`low rank`: PowerSGD's updates (Vogels et al. 2019) at their best: of a device's change with its residual, each matrix's
best approximation of that rank, which power iterations only approach, as int8 with a scale for each column, and vectors
as int8; what is left out stays in the residual. Its bytes are those of the factors behind zstd, in place of what the
simulated coordinator is given. `bundle_kb`: the files that devices fetch.

Digits chose ranks and shares; MNIST's 10,000 test images in `--data` show them. Prints a line for each fleet, and one
JSON object as its last line. Bytes are kB of whole signed envelopes; `total` holds bundles and versions too.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest.mock import patch

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.mnist import read_mnist
from benchmarks.mnist_fleet import BALANCED_RECIPE
from benchmarks.selection import CONCENTRATION, SCORE_EVERY, TARGET_SHARE, TRAINING_AT_A_TIME, fleet, smoothed
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from fleet_protocol.bundle_files import PLAIN_FILE
from fleet_protocol.codec import EncodedUpdate, encode_update, write_weights
from fleet_protocol.codec.sparse import FloatVector, Shapes
from fleet_protocol.update_plan import WHOLE_UPDATES, UpdatePlan
from workbench.data.partition import dirichlet_parts
from workbench.data.samples import FEWEST_SAMPLES, HELD_OUT_FRACTION, read_samples
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.compression.settings import (
    AdapterSettings,
    CompressionSettings,
    FactorSettings,
    PruningSettings,
)
from workbench.export.recipe.task_file import TaskFile
from workbench.simulation import simulation as simulated
from workbench.simulation.ledger import Point
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

DIGITS_RECIPE: Final = Path("models/digits")
DEFAULT: Final = "default"
SPARSER: Final = 0.3
PRUNED_AFTER: Final = 0.25
RANK: Final = 8
FIRST_LAYER: Final = ("[01].*",)
"""Of both recipes; it has 64 outputs, and factors of that rank may be a matrix of rank 64. The last layer is small."""
INT8: Final = 127
KB: Final = 1000


class LowRank:
    """Encodes updates as factors, and counts their bytes beside those of the dense float32 that it hands on."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._saved: list[int] = []

    def __call__(
        self, delta: FloatVector, shapes: Shapes, _: UpdatePlan, generator: np.random.Generator
    ) -> EncodedUpdate:
        """In place of `encode_update`."""
        tensors, codes, end = [], b"", 0
        for shape in shapes:
            start, end = end, end + math.prod(shape)
            tensor, packed = _approximated(delta[start:end].reshape(shape), self._rank)
            tensors.append(tensor)
            codes += packed
        encoded = encode_update(np.concatenate(tensors), shapes, WHOLE_UPDATES, generator)
        self._saved.append(len(encoded.packed) - len(zstandard.compress(codes)))
        return encoded

    def saved(self, updates: int) -> int:
        """Bytes that the first so many updates took less than the coordinator was given."""
        return sum(self._saved[:updates])


def _approximated(tensor: NDArray[np.float32], rank: int) -> tuple[FloatVector, bytes]:
    """What a receiver makes of a tensor f32[*shape], flat, and the bytes that it is made of."""
    if tensor.ndim == 1:
        (values, packed) = _int8(tensor.reshape(-1, 1))
        return values.ravel(), packed
    left, sizes, right = np.linalg.svd(tensor.reshape(tensor.shape[0], -1), full_matrices=False)
    roots = np.sqrt(sizes[:rank])
    outwards, first = _int8(left[:, :rank] * roots)
    inwards, second = _int8(right[:rank].T * roots)
    return (outwards @ inwards.T).ravel(), first + second


def _int8(columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], bytes]:
    """The columns rounded to int8 with a float16 scale for each, and their bytes."""
    scales = (np.abs(columns).max(axis=0) / INT8).astype(np.float16).astype(np.float32)
    codes = np.rint(columns / np.where(scales > 0, scales, 1)).clip(-INT8, INT8)
    return (codes * scales).astype(np.float32), scales.astype(np.float16).tobytes() + codes.astype(np.int8).tobytes()


@dataclass(frozen=True, slots=True)
class Contender:
    """What it changes in the recipe, and from which share of its updates on; how its updates are encoded."""

    compression: CompressionSettings | None = None
    keep: float = 1.0
    since: float = 0.0
    rank: int = 0


def contenders() -> Mapping[str, Contender]:
    """By name."""
    pruning = CompressionSettings(pruning=PruningSettings(SPARSER))
    return {
        DEFAULT: Contender(),
        "sparser": Contender(keep=SPARSER),
        "adapters": Contender(CompressionSettings(adapters=AdapterSettings(RANK, FIRST_LAYER))),
        "factors": Contender(CompressionSettings(factors=FactorSettings(RANK, FIRST_LAYER))),
        "pruned": Contender(pruning),
        "pruned later": Contender(pruning, since=PRUNED_AFTER),
        "low rank 1": Contender(rank=1),
        "low rank 2": Contender(rank=2),
    }


@dataclass(frozen=True, slots=True)
class Field:
    """A recipe, samples, and for how many devices and updates."""

    recipe: Path
    samples: Samples
    devices: int
    updates: int
    parts: dict[int, tuple[list[Samples], Samples]] = field(default_factory=dict)

    def shared_out(self, seed: int) -> tuple[list[Samples], Samples]:
        """A part for each device, and what is held out."""
        generator = np.random.default_rng((seed, 1))
        held_out, pooled = np.split(
            generator.permutation(len(self.samples)), [round(HELD_OUT_FRACTION * len(self.samples))]
        )
        labels = self.samples.labels[pooled].astype(np.int64)
        parts = dirichlet_parts(labels, self.devices, generator, fewest=FEWEST_SAMPLES, concentration=CONCENTRATION)
        return [self.samples.take(pooled[part]) for part in parts], self.samples.take(held_out)


class Run(msgspec.Struct, frozen=True):
    """One fleet: where it met the target, None where it never did, and where it ended; accuracies in per cent."""

    contender: str
    seed: int
    parameters: int
    learning_rate: float
    bundle_kb: float
    update_bytes: int
    updates: int | None
    uplink_kb: float | None
    total_kb: float | None
    accuracy: float
    ending_uplink_kb: float
    ending_total_kb: float


def prepared(data: Path | None, *, quick: bool) -> Field:
    """MNIST's in the folder `data`; without one, digits."""
    if data is None:
        with tempfile.TemporaryDirectory() as folder:
            samples = read_samples("digits", export_bundle(DIGITS_RECIPE, Path(folder), tell=lambda _: None))
        return Field(DIGITS_RECIPE, samples, devices=50, updates=100 if quick else 400)
    digits = read_mnist(data)
    samples = Samples(digits.images.reshape(len(digits.labels), -1), digits.labels, len(digits.labels))
    return Field(BALANCED_RECIPE, samples, devices=100, updates=100 if quick else 400)


def exported(recipe: Path, out: Path, contender: Contender, weights: Path | None = None) -> None:
    """The contender's bundle, with the learning rate that is found for it."""

    def change(task: TaskFile) -> TaskFile:
        keep = contender.keep * task.update.keep_fraction
        return msgspec.structs.replace(
            task,
            compression=contender.compression,
            training=msgspec.structs.replace(task.training, learning_rate=0.0),
            update=msgspec.structs.replace(task.update, keep_fraction=keep),
        )

    export_bundle(recipe, out, change=change, weights=weights, tell=lambda _: None)


def simulation(field: Field, folder: Path, seed: int, updates: int) -> Simulation:
    """A fleet that trains the bundle in `folder`."""
    bundle = load_bundle(folder)
    options = Options(
        seed=seed,
        seconds=math.inf,
        updates=updates,
        score_every=SCORE_EVERY,
        concurrent=round(TRAINING_AT_A_TIME * field.devices),
    )
    workload = trained_workload(folder, bundle.description, *field.shared_out(seed))
    return Simulation(fleet(field.devices, seed), bundle, workload, options)


def history_of(field: Field, contender: Contender, seed: int, folder: Path) -> list[Point]:
    """The contender's scores and bytes, whose last bundle is in `folder` then."""
    before: list[Point] = []
    weights = None
    if contender.since:
        exported(field.recipe, folder / "whole", Contender())
        whole = simulation(field, folder / "whole", seed, round(contender.since * field.updates))
        before = whole.run().history
        weights = folder / "learned.safetensors"
        weights.write_bytes(write_weights(whole.world.coordinator.model, whole.bundle.description.parameters))
    exported(field.recipe, folder / "bundle", contender, weights)
    encode = LowRank(contender.rank) if contender.rank else None
    with patch.object(simulated, "encode_update", encode) if encode else nullcontext():
        updates = field.updates - (before[-1].updates if before else 0)
        after = simulation(field, folder / "bundle", seed, updates).run().history
    saved: Callable[[int], int] = encode.saved if encode else lambda _: 0
    return [*before, *(_behind(point, before, saved(point.updates)) for point in after)]


def _behind(point: Point, before: Sequence[Point], saved: int) -> Point:
    """A point behind those of an earlier bundle, with `saved` bytes less."""
    last = before[-1] if before else None
    return msgspec.structs.replace(
        point,
        updates=point.updates + (last.updates if last else 0),
        uplink_bytes=point.uplink_bytes - saved + (last.uplink_bytes if last else 0),
        total_bytes=point.total_bytes - saved + (last.total_bytes if last else 0),
    )


def compared(field: Field, names: Sequence[str], seed: int) -> list[Run]:
    """All contenders on the same fleet, with a line for each."""
    found: list[Run] = []
    target = 0.0
    for name in dict.fromkeys([DEFAULT, *names]):
        with tempfile.TemporaryDirectory() as folder:
            history = history_of(field, contenders()[name], seed, Path(folder))
            bundle = load_bundle(Path(folder) / "bundle")
        scores = smoothed(history)
        target = target or TARGET_SHARE * scores[-1]
        there = next((point for point, score in zip(history, scores, strict=True) if score >= target), None)
        last = history[-1]
        run = Run(
            name,
            seed,
            bundle.description.parameter_count,
            round(bundle.description.training.learning_rate, 4),
            sum(len(data) for name, data in bundle.files.items() if name != PLAIN_FILE) / KB,
            round(last.uplink_bytes / last.updates),
            there.updates if there else None,
            round(there.uplink_bytes / KB, 1) if there else None,
            round(there.total_bytes / KB) if there else None,
            round(100 * scores[-1], 1),
            round(last.uplink_bytes / KB, 1),
            round(last.total_bytes / KB),
        )
        found.append(run)
        print(json.dumps({"target": round(100 * target, 1)} | msgspec.to_builtins(run)), flush=True)
    return found


def main() -> None:
    """Run every contender on every seed's fleet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the MNIST test images; left out, digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=contenders(), default=list(contenders()))
    parser.add_argument("--quick", action="store_true", help="few updates")
    given = parser.parse_args()
    started = time.monotonic()
    arena = prepared(given.data, quick=given.quick)
    runs = [run for seed in given.seeds for run in compared(arena, given.only, seed)]
    about = {"data": "mnist" if given.data else "digits", "devices": arena.devices, "updates": arena.updates}
    print(json.dumps(about | {"wall_seconds": round(time.monotonic() - started), "runs": msgspec.to_builtins(runs)}))


if __name__ == "__main__":
    main()
