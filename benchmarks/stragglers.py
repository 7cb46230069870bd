"""Time to accuracy where 30 % of the devices are ten times slower: `python -m benchmarks.stragglers [--data FOLDER]`.

Fifty devices that see unlike digits (Dirichlet 0.3) learn a linear head behind random features
(`benchmarks/random_features`), the model that coded computation is for. Ten train at any time. The target is 97 % of
the accuracy of the ridge regression of all samples together. Time is virtual, in rounds of a fast device, and counts
training alone:

- `rounds`: synchronous rounds of ten (FedAvg), which wait for everybody;
- `rounds, over-selection`: thirteen or fifteen begin, and the first ten make the version: failures are ignored;
- `coded rounds`: CodedFedL (Prakash et al. 2020): gradient descent on the squared error by all devices at once; who is
  slow has sent parity data before, random combinations of its samples' features and labels, of which the sum stands at
  the coordinator and gives the gradient that is missing; its learning rate is the largest that converges. A reference
  in NumPy;
- `default`: asynchronous, as shipped;
- `one message`: `[solved_head]`, whose statistics say all of the squared error that there is to say
  (docs/decisions/coded-heads-are-solved.md).

Bytes are of what devices send, in all, until then; of `coded rounds`, float32 numbers alone. Digits with seed 9 chose
the two learning rates. `--data` has MNIST's 10,000 test images, which are brought to 8 by 8. Prints a line for each
run, and one JSON object as its last line.
"""

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from benchmarks.mnist import PIXELS, read_mnist
from benchmarks.mnist_fleet import FAST
from bundle_runtime.bundle import Bundle, with_description
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.update_plan import UpdatePlan
from workbench.data.partition import dirichlet_parts
from workbench.data.samples import FEWEST_SAMPLES, HELD_OUT_FRACTION, read_samples
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.workload import trained_workload

RECIPE: Final = Path("benchmarks/random_features")
SOLVED: Final = '\n[solved_head]\nsolver = "ridge"\nprecision = "float32"\n'
DEVICES, TRAINING_AT_A_TIME, CONCENTRATION = 50, 10, 0.3
SLOW_SHARE: Final = 0.3
ROUND_SECONDS, TIMES_SLOWER = 60.0, 10.0
TARGET_SHARE: Final = 0.97
UPDATES, MOST_CODED_ROUNDS = 1500, 2000
NEVER: Final = 1e9
DENSE: Final = UpdatePlan(1.0, quantisation="float32", selection="dense")
ROUNDS_LEARNING_RATE: Final = 1.0
PARITY_ROWS: Final = 64
"""Of each slow device: a quarter of the features."""
RIDGE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Data:
    """A part for each device, and what is held out."""

    parts: list[Samples]
    held_out: Samples


class Run(msgspec.Struct, frozen=True):
    """One fleet on the way to `target`; `rounds` of a fast device and `kilobytes` sent until it is there, None if it
    never was. `accuracy` then, or at the end, in per cent.
    """

    method: str
    seed: int
    target: float
    rounds: float | None
    kilobytes: float | None
    accuracy: float


@contextmanager
def exported() -> Iterator[tuple[Path, Path]]:
    """The recipe's bundle, and the one whose head is solved."""
    with tempfile.TemporaryDirectory() as folder:
        trained, recipe, solved = Path(folder, "trained"), Path(folder, "recipe"), Path(folder, "solved")
        export_bundle(RECIPE, trained, tell=lambda _: None)
        shutil.copytree(RECIPE, recipe)
        with (recipe / "task.toml").open("a") as settings:
            settings.write(SOLVED)
        export_bundle(recipe, solved, tell=lambda _: None)
        yield trained, solved


def all_samples(data: Path | None, bundle: Bundle) -> Samples:
    """Digits, or MNIST's: 3 by 3 pixels of the middle 24 by 24 are one."""
    if data is None:
        return read_samples("digits", bundle.description)
    digits = read_mnist(data)
    inner = digits.images.reshape(-1, PIXELS, PIXELS)[:, 2:26, 2:26]
    small = inner.reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4), dtype=np.float32)
    return Samples(small.reshape(len(small), -1), digits.labels, len(digits.labels))


def shared_out(samples: Samples, seed: int) -> Data:
    """Over the devices, by the seed."""
    generator = np.random.default_rng((seed, 1))
    order = generator.permutation(len(samples))
    held_out, pooled = np.split(order, [round(HELD_OUT_FRACTION * len(order))])
    labels = samples.labels[pooled].astype(np.int64)
    parts = dirichlet_parts(labels, DEVICES, generator, fewest=FEWEST_SAMPLES, concentration=CONCENTRATION)
    return Data([samples.take(pooled[part]) for part in parts], samples.take(held_out))


def is_slow(seed: int) -> Sequence[bool]:
    """Of each device."""
    slow = np.arange(DEVICES) < SLOW_SHARE * DEVICES
    return [bool(each) for each in np.random.default_rng((seed, 2)).permutation(slow)]


def fleet(seed: int) -> list[FleetMember]:
    """Devices that differ in speed alone."""
    return [
        FleetMember(
            Conditions(
                training_mflops=FAST,
                start_seconds=ROUND_SECONDS * (TIMES_SLOWER if slow else 1.0),
                uplink_kbit_s=FAST,
                downlink_kbit_s=FAST,
                latency_ms=0.0,
                samples_per_hour=1.0,
            ),
            GuardSettings(minimum_samples=FEWEST_SAMPLES),
        )
        for slow in is_slow(seed)
    ]


def in_rounds(bundle: Bundle, over_selection: float) -> Bundle:
    """The task in synchronous rounds, as published: whole updates, and the newest version is the model."""
    plan = AggregationPlan(
        buffer_size=TRAINING_AT_A_TIME,
        strategy="fedavg",
        max_staleness=0,
        round_seconds=NEVER,
        over_selection=over_selection,
        averaged_versions=1,
    )
    task = bundle.description
    training = msgspec.structs.replace(
        task.training,
        learning_rate=ROUNDS_LEARNING_RATE,
        epochs_per_round=0,
        maximum_epochs=0,
        validation_share=0.0,
    )
    return with_description(bundle, msgspec.structs.replace(task, aggregation=plan, training=training, update=DENSE))


def simulated(folder: Path, bundle: Bundle, data: Data, seed: int, target: float, *, over: float = 0.0) -> Result:
    """A fleet until the target; in rounds that select `over` times as many as they take, where that is above 0."""
    options = Options(
        seed=seed,
        seconds=math.inf if bundle.description.solved_head is None else 2 * DEVICES * TIMES_SLOWER * ROUND_SECONDS,
        updates=UPDATES,
        target=target,
        stop_at_target=True,
        score_every=1,
        concurrent=math.ceil(TRAINING_AT_A_TIME * (over or 1.0)),
        synchronous=over > 0,
    )
    workload = trained_workload(folder, bundle.description, data.parts, data.held_out)
    return Simulation(fleet(seed), bundle, workload, options).run()


def as_run(method: str, seed: int, target: float, result: Result) -> Run:
    """What a simulation came to."""
    end = result.summary.reached
    last = end or result.history[-1]
    return Run(
        method,
        seed,
        round(100 * target, 2),
        round(end.virtual_seconds / ROUND_SECONDS, 2) if end else None,
        round(sum(result.summary.bytes_up.values()) / 1000, 1) if end else None,
        round(100 * last.score, 2),
    )


class Regression:
    """The squared error of linear heads, of scores around 0 and 1, on features f32[N, D] with a 1 behind them."""

    def __init__(self, features: Sequence[FloatVector], labels: Sequence[np.ndarray], classes: int) -> None:
        self.inputs = [np.hstack([each, np.ones((len(each), 1), np.float32)]).astype(np.float64) for each in features]
        self.wanted = [np.eye(classes)[each.astype(np.int64)] for each in labels]

    def accuracy(self, head: np.ndarray) -> float:
        """Of all samples together."""
        right = [np.argmax(x @ head, 1) == np.argmax(y, 1) for x, y in zip(self.inputs, self.wanted, strict=True)]
        return float(np.mean(np.concatenate(right)))

    def ridge(self) -> np.ndarray:
        """The head with the least squared error, [D + 1, C]."""
        x, y = np.vstack(self.inputs), np.vstack(self.wanted)
        head: np.ndarray = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
        return head

    def gradient(self, head: np.ndarray) -> np.ndarray:
        """Of the sum of squared errors, halved."""
        pairs = zip(self.inputs, self.wanted, strict=True)
        total: np.ndarray = sum((x.T @ (x @ head - y) for x, y in pairs), np.zeros_like(head))
        return total

    def parity(self, rows: int, generator: np.random.Generator) -> "Regression":
        """The sum over devices of so many random combinations of each one's samples (equation 12): its gradient is
        that of all samples in the mean.
        """
        mixed = [generator.standard_normal((rows, len(x))) / math.sqrt(rows) for x in self.inputs]
        coded = Regression([], [], 0)
        coded.inputs = [sum(g @ x for g, x in zip(mixed, self.inputs, strict=True))]  # type: ignore[list-item]
        coded.wanted = [sum(g @ y for g, y in zip(mixed, self.wanted, strict=True))]  # type: ignore[list-item]
        return coded


def coded_rounds(devices: Regression, held_out: Regression, slow: Sequence[bool], seed: int, target: float) -> Run:
    """CodedFedL: each round waits for the fast devices alone. The slow ones' parity has come after a slow round."""
    fast, away = Regression([], [], 0), Regression([], [], 0)
    for place, each in enumerate(slow):
        into = away if each else fast
        into.inputs.append(devices.inputs[place])
        into.wanted.append(devices.wanted[place])
    coded = away.parity(PARITY_ROWS, np.random.default_rng((seed, 4)))
    x = np.vstack([*fast.inputs, *coded.inputs])
    step = 1.0 / float(np.linalg.eigvalsh(x.T @ x)[-1])
    head = np.zeros((x.shape[1], devices.wanted[0].shape[1]))
    parity_bytes = sum(slow) * PARITY_ROWS * (x.shape[1] + head.shape[1]) * 4
    for done in range(1, MOST_CODED_ROUNDS + 1):
        head -= step * (fast.gradient(head) + coded.gradient(head))
        if held_out.accuracy(head) >= target:
            sent = parity_bytes + done * (DEVICES - sum(slow)) * head.size * 4
            rounds = TIMES_SLOWER + done
            kilobytes = round(sent / 1000, 1)
            return Run("coded rounds", seed, round(100 * target, 2), rounds, kilobytes, _percent(held_out, head))
    return Run("coded rounds", seed, round(100 * target, 2), None, None, _percent(held_out, head))


def _percent(samples: Regression, head: np.ndarray) -> float:
    return round(100 * samples.accuracy(head), 2)


def compared(folders: tuple[Path, Path], samples: Samples, seed: int) -> Iterator[Run]:
    """All ways, on one fleet."""
    trained, solved = (load_bundle(folder) for folder in folders)
    data = shared_out(samples, seed)
    runner = BundleRunner(trained.description, bundle_paths(folders[0], trained.description))
    classes = int(samples.labels.max()) + 1
    featured = [runner.featured(part) for part in [*data.parts, data.held_out]]
    devices = Regression([each.inputs for each in featured[:-1]], [each.labels for each in featured[:-1]], classes)
    held_out = Regression([featured[-1].inputs], [featured[-1].labels], classes)
    target = TARGET_SHARE * held_out.accuracy(devices.ridge())
    for name, over in (("rounds", 1.0), ("rounds, over-selection 1.3", 1.3), ("rounds, over-selection 1.5", 1.5)):
        yield as_run(name, seed, target, simulated(folders[0], in_rounds(trained, over), data, seed, target, over=over))
    yield coded_rounds(devices, held_out, is_slow(seed), seed, target)
    yield as_run("default", seed, target, simulated(folders[0], trained, data, seed, target))
    yield as_run("one message", seed, target, simulated(folders[1], solved, data, seed, target))


def medians(runs: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """By method; None where one of its fleets never came to the target."""
    found = {}
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        rounds = [run.rounds for run in mine if run.rounds is not None]
        sent = [run.kilobytes for run in mine if run.kilobytes is not None]
        came = len(rounds) == len(mine)
        found[method] = {
            "rounds": statistics.median(rounds) if came else None,
            "kilobytes": statistics.median(sent) if came else None,
        }
    return found


def main() -> None:
    """Run everything for every seed, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the MNIST test images; left out, digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    started = time.monotonic()
    runs: list[Run] = []
    with exported() as folders:
        samples = all_samples(given.data, load_bundle(folders[0]))
        for seed in given.seeds:
            for run in compared(folders, samples, seed):
                runs.append(run)
                print(msgspec.json.encode(run).decode(), flush=True)
    about = {"data": "mnist" if given.data else "digits", "devices": DEVICES, "slow": SLOW_SHARE}
    found = {"medians": medians(runs), "wall_seconds": round(time.monotonic() - started)}
    print(json.dumps({"benchmark": "stragglers"} | about | found | {"runs": msgspec.to_builtins(runs)}))


if __name__ == "__main__":
    main()
