"""Heads from one message of each device, on spoken digits.

`python -m benchmarks.one_message --data-dir FOLDER [--quick | --heads]`, after `make speech-embedding`, prints one
JSON object as its last line.

`identity`: the head that the shipped coordinator makes of the messages of 10 to 1,000 devices, in float64, in several
parts with a restart after each, against the ridge regression of all samples together (numpy's least squares): the
largest difference relative to the largest weight, also in the opposite order, and after ten devices were forgotten,
against the regression of the samples of the others. There is no bound on claimed samples in it: `exceed` counts the
devices that the usual one would bind. `heads`: accuracy on the test set of each solver and precision for 30 devices
with one speaker and three digits each, and the bytes of their largest signed message. `rounds`: the same head trained
in rounds, every device from the same version, by the shipped training, codec and aggregation, dense and with the
shipped compression; each with the learning rate of `RATES` that does best on the test set in the first rounds. Bytes
are of signed updates alone. `averaged_accuracy`: the mean of heads that every device trained alone.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.fleet_of_heads import HeadFleet, pooled_ridge, statistics_message, with_head
from benchmarks.spoken_digits import SpokenDigits, divided, one_speaker_three_digits, read_spoken_digits
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.solved_head import SolvedHead
from fleet_protocol.update_plan import UpdatePlan
from workbench.data.head_rounds import RATES, Contest
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe

RIDGE = 1.0
EXACT = SolvedHead(solver="ridge", ridge=RIDGE, precision="float64", most_times_median=0.0)
HEADS = [
    SolvedHead(solver="means", precision="float32"),
    SolvedHead(solver="means", precision="float16"),
    SolvedHead(solver="means", precision="int8"),
    SolvedHead(solver="gaussian", precision="float32"),
    SolvedHead(solver="gaussian", precision="int8"),
    SolvedHead(solver="ridge", precision="float64"),
    SolvedHead(solver="ridge", precision="float32"),
    SolvedHead(solver="ridge", precision="float16"),
]
FORGOTTEN = 10
PARTS = 4
ALONE = 20
"""Rounds."""
TRAINED = {"dense": UpdatePlan(1.0, quantisation="float32", selection="dense"), "compressed": UpdatePlan(0.1)}


def identity(data: SpokenDigits, bundle: Bundle, devices: int, skew: str) -> dict[str, object]:
    """How far the coordinator's head is from pooled ridge, whatever the order, and when some are forgotten."""
    rows = divided(data, devices, skew, seed=devices)
    lengths = [len(part) for part in rows]
    named = {f"d{number:04}": part for number, part in enumerate(rows)}
    exact = with_head(bundle, EXACT, buffer_size=max(1, len(named) // PARTS))
    messages = {name: statistics_message(name, data.take(part), exact) for name, part in named.items()}
    everything = _ridge_of(data, list(named.values()))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        fleet = HeadFleet(Path(one), exact)
        straight = fleet.send(messages, parts=PARTS)
        backwards = HeadFleet(Path(other), exact).send(dict(reversed(messages.items())), parts=PARTS + 1)
        gone = list(named)[: min(FORGOTTEN, len(named) - 1)]
        left = fleet.forget(gone)
    others = _ridge_of(data, [part for name, part in named.items() if name not in gone])
    return {
        "skew": skew,
        "devices": len(named),
        "exceed": int(sum(len(part) > SolvedHead().most_times_median * np.median(lengths) for part in rows)),
        "difference": _difference(straight, everything),
        "same_bits_in_opposite_order": straight.tobytes() == backwards.tobytes(),
        "forgotten": len(gone),
        "difference_after_forgetting": _difference(left, others),
        "message_bytes": max(map(len, messages.values())),
    }


def _ridge_of(data: SpokenDigits, parts: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    rows = np.concatenate(parts)
    labels = data.digits[rows]
    wanted = np.zeros((10, data.features.shape[1] + 1))
    found = pooled_ridge(data.features[rows], labels, RIDGE)
    classes = int(labels.max()) + 1
    wanted[:classes, :-1] = found[: -classes or None].reshape(classes, -1)
    wanted[:classes, -1] = found[-classes:]
    return np.concatenate([wanted[:, :-1].ravel(), wanted[:, -1]])


def _difference(found: FloatVector, wanted: NDArray[np.float64]) -> float:
    return float(f"{np.abs(found - wanted).max() / np.abs(wanted).max():.2g}")


def head(data: SpokenDigits, bundle: Bundle, plan: SolvedHead, runner: BundleRunner) -> dict[str, object]:
    """Accuracy and bytes of one solver."""
    rows = one_speaker_three_digits(data)
    solved = with_head(bundle, plan, buffer_size=len(rows))
    messages = {f"d{n:04}": statistics_message(f"d{n:04}", data.take(part), solved) for n, part in enumerate(rows)}
    with tempfile.TemporaryDirectory() as folder:
        weights = HeadFleet(Path(folder), solved).send(messages, parts=1)
    evaluation = runner.evaluate_features(weights, data.test)
    return {
        "solver": plan.solver,
        "precision": plan.precision,
        "accuracy": round(float(evaluation.accuracy or 0), 4),
        "message_bytes": max(map(len, messages.values())),
        "bytes_of_all": sum(map(len, messages.values())),
    }


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with spoken_digits/recordings.npz")
    parser.add_argument("--heads", action="store_true", help="the accuracy of each solver and precision alone")
    parser.add_argument("--quick", action="store_true", help="at most 100 devices, 20 rounds, one learning rate")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(find_recipe("speech_commands"), Path(folder), tell=lambda _: None)
        bundle = load_bundle(Path(folder))
        runner = BundleRunner(bundle.description, bundle.files)
        data = read_spoken_digits(arguments.data_dir, runner)
        if arguments.heads:
            print(json.dumps({"heads": [head(data, bundle, plan, runner) for plan in HEADS]}))
            return
        sizes = (10, 100) if arguments.quick else (10, 100, 1000)
        identities = []
        for devices in sizes:
            for skew in ("iid", "dirichlet_0.1", "one_class"):
                identities.append(identity(data, bundle, devices, skew))
                print(json.dumps(identities[-1]), flush=True)
        heads = [head(data, bundle, plan, runner) for plan in HEADS]
        print(json.dumps(heads), flush=True)
        count, rates = (20, RATES[1:2]) if arguments.quick else (200, RATES)
        parts = [data.take(part) for part in one_speaker_three_digits(data)]
        contest = Contest(bundle, Path(folder), parts, data.test)
        rounds = {name: contest.rounds(plan, count, rates) for name, plan in TRAINED.items()}
        averaged = contest.averaged(TRAINED["dense"], ALONE, rounds["dense"].learning_rate)
    for each in heads:
        accuracy = float(str(each["accuracy"]))
        each["rounds_bytes_to_equal_accuracy"] = {name: result.bytes_to(accuracy) for name, result in rounds.items()}
    print(
        json.dumps(
            {
                "identity": identities,
                "largest_difference": max(float(str(each["difference"])) for each in identities),
                "heads": heads,
                "rounds": {name: result.summary() for name, result in rounds.items()},
                "averaged_accuracy": round(averaged, 4),
                "wall_seconds": round(time.monotonic() - started),
            }
        )
    )


if __name__ == "__main__":
    main()
