"""Twenty devices with mixed cuts against the same fleet unsplit.

python -m benchmarks.split_against_whole --data-dir FOLDER

Real programs on a real Mosquitto (`benchmarks.split_fleet`): MNIST's 10,000 test images, of which 2,000 are held out,
are shared out with Dirichlet(0.3). Every device trains as many rounds of as many steps in each fleet; the model to use,
the mean of the last versions, is measured on the images that no device has. What a version takes and what stale passes
count was chosen on these; `--set fashion` shows 2,000 pictures of clothes, which chose nothing.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.mnist import read_mnist
from benchmarks.split_fleet import SplitFleet, relayed, split_fleet
from benchmarks.zoo.samples.pictures import fashion
from broker_coordinator.commands.export import model_of
from broker_coordinator.storage.journal import Journal
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.task_description import TaskDescription
from workbench.data.samples import share_out
from workbench.export.bundle_writer import export_bundle

ROUND_SECONDS = 600.0
WHOLE = "off"
FLEETS = ("whole", "split", "mixed")
"""Nobody has a helper; everybody has, with one cut or another; or some have."""
RECIPE = Path(__file__).parent / "mnist_blocks"


def exported(folder: Path, in_flight: int | None) -> TaskDescription:
    """The recipe's bundle, with so many steps under way at most."""
    task = export_bundle(RECIPE, folder, tell=lambda _: None)
    if in_flight is None or task.split is None:
        return task
    task = msgspec.structs.replace(task, split=msgspec.structs.replace(task.split, most_in_flight=in_flight))
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(task))
    return task


def run(bundle: Path, cuts: Sequence[str], parts: Sequence[Samples], held_out: Samples, rounds: int) -> dict[str, Any]:
    """A fleet with these cuts, after so many rounds of each device."""
    with tempfile.TemporaryDirectory(prefix="split-") as name:
        folder = Path(name)
        started = time.monotonic()
        accuracies: list[float] = []
        with split_fleet(folder, bundle, cuts) as fleet:
            fleet.deliver(parts)
            while len(accuracies) < rounds:
                _train_round(fleet, len(accuracies) + 1)
                accuracies.append(_accuracy(folder, bundle, fleet.task, held_out))
                print(json.dumps({"cuts": sorted(set(cuts)), "accuracies": accuracies}), flush=True)
            counted = relayed(fleet)
            traffic = sum(value for name, value in counted.items() if name.startswith("edgeflock_relayed_bytes"))
        return {
            "accuracy": accuracies[-1],
            "accuracies": accuracies,
            "relayed_bytes": traffic,
            "seconds": round(time.monotonic() - started),
        }


def _train_round(fleet: SplitFleet, number: int) -> None:
    for device in fleet.devices:
        device.train()

    def done() -> bool:
        return all(device.status()["accepted_updates"] >= number for device in fleet.devices)

    fleet.wait(done, f"round {number}", ROUND_SECONDS)


def _accuracy(folder: Path, bundle: Path, task: TaskDescription, held_out: Samples) -> float:
    with Journal.open_to_look(folder / "coordinator.db") as journal:
        weights = read_weights(model_of(journal, task.task, None, single=False), task.parameters)
    accuracy = BundleRunner(task, bundle_paths(bundle, task)).evaluate(weights, held_out).accuracy
    assert accuracy is not None
    return round(accuracy, 4)


def main() -> None:
    """Print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, metavar="FOLDER", help="with the data sets")
    parser.add_argument("--set", choices=["mnist", "fashion"], default="mnist", help="what is learned")
    parser.add_argument("--devices", type=int, default=20, metavar="N")
    parser.add_argument("--rounds", type=int, default=6, metavar="N")
    parser.add_argument("--in-flight", type=int, metavar="N", help="most steps under way (as many as the task says)")
    parser.add_argument("--fleets", nargs="+", default=list(FLEETS), choices=FLEETS, metavar="FLEET")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides who has which images")
    options = parser.parse_args()
    digits = read_mnist(options.data_dir)
    samples = Samples(digits.images, digits.labels) if options.set == "mnist" else fashion(options.data_dir)
    with tempfile.TemporaryDirectory(prefix="split-") as name:
        bundle = Path(name)
        task = exported(bundle, options.in_flight)
        assert task.split is not None
        mixed = [each.name for each in task.split.cuts]
        parts, held_out = share_out(samples, task, options.devices, options.seed)
        cuts = {"whole": [WHOLE], "split": mixed, "mixed": [WHOLE, *mixed]}
        found = {
            fleet: run(bundle, list(islice(cycle(cuts[fleet]), options.devices)), parts, held_out, options.rounds)
            for fleet in options.fleets
        }
    print(
        json.dumps(
            {
                "set": options.set,
                "devices": options.devices,
                "steps_of_each_device": options.rounds * task.training.steps,
                "most_in_flight": task.split.most_in_flight,
                **found,
            }
        )
    )


if __name__ == "__main__":
    main()
