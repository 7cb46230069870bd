"""How unlike devices' updates are on which data: `python -m benchmarks.dissimilarity`.

Fleets of the zoo (docs/learning.md) train in virtual time; of each one's last updates come the figures that `tasks
diagnose` gives. Prints a line for each fleet, and one JSON object as its last line.
"""

import argparse
import json
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from benchmarks.zoo.__main__ import CACHE
from benchmarks.zoo.bundles import bundle_folder
from benchmarks.zoo.case import Case, Length, run_case
from benchmarks.zoo.partitions import PARTITIONS, applies
from benchmarks.zoo.tasks import DATA, TASKS, read_split
from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import Accepted, Decision
from broker_coordinator.admission.fleet_view import FleetView
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.diagnostics.dissimilarity import Dissimilarity, dissimilarity
from broker_coordinator.commands.diagnose import UPDATES_OF_DEVICE
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.codec import SparseUpdate

USUAL = ("digits", "notmnist", "mnist20k", "fashion", "occupancy")
Sent = dict[str, deque[SparseUpdate]]


@contextmanager
def watched() -> Iterator[Sent]:
    """The last accepted updates of each device of the fleets that are simulated meanwhile."""
    sent: Sent = defaultdict(lambda: deque(maxlen=UPDATES_OF_DEVICE))

    class Watched(Admission):
        def apply(self, decision: Decision, view: FleetView) -> None:
            super().apply(decision, view)
            if isinstance(decision, Accepted) and isinstance(decision.item, BufferedUpdate):
                sent[decision.device].append(decision.item.delta)

    with patch("workbench.simulation.coordinator.Admission", Watched):
        yield sent


def figures(case: Case, options: argparse.Namespace) -> dict[str, object]:
    """Of a fleet's last updates, and what it has learned by then."""
    folder = bundle_folder(case.task, CACHE, {})
    with watched() as sent:
        result, seconds = run_case(
            case, folder, read_split(case.task, case.seed, options.data_dir), Length(None, options.updates)
        )
    found = dissimilarity(map(list, sent.values()), load_bundle(folder).description.parameter_count)
    assert isinstance(found, Dissimilarity), f"{case.name}: too few devices have sent anything"
    return {
        "case": case.name,
        "devices": found.devices,
        "b_squared": round(found.b_squared, 2),
        "lasting": round(found.lasting, 3),
        "in_common": round(found.in_common, 3),
        "score": round(result.history[-1].score, 4),
        "cpu_s": round(seconds, 1),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=USUAL)
    parser.add_argument("--partitions", nargs="+", choices=list(PARTITIONS), default=list(PARTITIONS))
    parser.add_argument("--devices", type=int, nargs="+", default=[40])
    parser.add_argument("--updates", type=int, default=400, help="of a fleet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data-dir", type=Path, default=DATA)
    options = parser.parse_args()
    rows = []
    for task in options.tasks:
        kind = load_bundle(bundle_folder(task, CACHE, {})).description.label.kind
        for partition in options.partitions:
            for devices, seed in ((count, each) for count in options.devices for each in options.seeds):
                if applies(partition, kind):
                    rows.append(figures(Case(task, partition, devices, seed), options))
                    print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"benchmark": "dissimilarity", "fleets": rows}))


if __name__ == "__main__":
    main()
