"""What rounds make of a solved head, as after `tasks refine`, on spoken digits.

`python -m benchmarks.refined_heads --data-dir FOLDER`, after `make speech-embedding`, prints one JSON object as its
last line. 30 devices with one speaker and three digits each; from the head of each solver, by the shipped solvers from
statistics as they arrive, 20 synchronous rounds of all devices with the shipped training, compression and aggregation,
at each of `RATES`: accuracy on the test set before, after 5 and after 20 rounds.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.image_heads import arrived
from benchmarks.pictures_and_words import Featured
from benchmarks.spoken_digits import one_speaker_three_digits, read_spoken_digits
from broker_coordinator.aggregation.solved_heads import most_counted, pooled, solve
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.solved_head import SolvedHead, Solver
from fleet_protocol.update_plan import UpdatePlan
from workbench.data.head_rounds import Contest
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe

RATES = (0.001, 0.003, 0.01)
ROUNDS = 20
SOLVERS: tuple[Solver, ...] = ("means", "gaussian", "ridge")
COMPRESSED = UpdatePlan(0.1)


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with spoken_digits/recordings.npz")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(find_recipe("speech_commands"), Path(folder), tell=lambda _: None)
        bundle = load_bundle(Path(folder))
        runner = BundleRunner(bundle.description, bundle.files)
        read = read_spoken_digits(arguments.data_dir, runner)
        data = Featured(read.features, read.digits, read.test.inputs, read.digits[read.is_test])
        parts = one_speaker_three_digits(read)
        contest = Contest(bundle, Path(folder), [read.take(part) for part in parts], read.test)
        for solver in SOLVERS:
            plan = SolvedHead(solver=solver)
            statistics, _ = arrived(data, parts, plan)
            solved = solve(pooled(statistics, solver, most_counted(statistics, plan, MAX_SAMPLES_PER_UPDATE)), plan)
            before = runner.evaluate_features(solved.flat(), read.test).accuracy or 0.0
            for rate in RATES:
                found = contest.rounds(COMPRESSED, ROUNDS, (rate,), solved.flat()).accuracies
                after = {"5": round(found[4], 4), "20": round(found[-1], 4)}
                rows.append({"solver": solver, "before": round(before, 4), "learning_rate": rate, "after": after})
                print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"refined": rows}))


if __name__ == "__main__":
    main()
