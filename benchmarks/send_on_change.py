"""Updates saved against accuracy, by the rules of `[sending]`: `python -m benchmarks.send_on_change`.

A fleet of a recipe's own bundle in virtual time (`workbench.simulation`), a tenth of which trains at any time, for as
long with each rule. `saved` is the share of finished rounds that sent nothing because of the rule. One JSON object as
its last line; means over the seeds.
"""

import argparse
import json
import statistics
from collections.abc import Iterator

import msgspec

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.profiles import read_profile
from fleet_protocol.bundle import parse_description
from fleet_protocol.sending_plan import SendingPlan
from workbench.data.samples import read_samples, share_out
from workbench.recipe_folder import find_recipe
from workbench.simulation.fleet_files import draw_fleet
from workbench.simulation.ledger import Summary
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

THRESHOLDS = {"changed": (0.8, 0.95, 1.0), "relevant": (0.5, 0.55, 0.6), "better": (0.0, 0.01, 0.05)}
BY_RULE = {"changed": "unchanged", "relevant": "irrelevant", "better": "no_better"}
"""What `rounds_withheld` calls them."""


class Row(msgspec.Struct, frozen=True):
    """What a rule has saved and cost."""

    rule: str
    threshold: float
    updates: float
    saved: float
    uplink_kb: float
    score: float


def plans() -> Iterator[SendingPlan]:
    """Every rule, with every threshold that is tried."""
    yield SendingPlan()
    for rule, thresholds in THRESHOLDS.items():
        for threshold in thresholds:
            yield msgspec.convert({"rule": rule, "threshold": threshold}, SendingPlan)


def run(options: argparse.Namespace, plan: SendingPlan, seed: int) -> Summary:
    """One simulation."""
    folder = find_recipe(options.task) / "bundle"
    bundle = load_bundle(folder)
    changed = msgspec.structs.replace(bundle.description, sending=plan)
    task = parse_description(msgspec.json.encode(changed), options.task)
    fleet = draw_fleet([read_profile("pi-4")], options.devices, seed)
    samples = read_samples(options.data, task)
    workload = trained_workload(folder, task, *share_out(samples, task, len(fleet), seed))
    concurrent = max(1, options.devices // 10)
    wanted = Options(seed=seed, seconds=options.hours * 3600, concurrent=concurrent)
    return Simulation(fleet, Bundle(task, bundle.files), workload, wanted).run().summary


def row(plan: SendingPlan, runs: list[Summary]) -> Row:
    """Means over the seeds."""
    withheld = [each.rounds_withheld.get(BY_RULE.get(plan.rule, ""), 0) for each in runs]
    return Row(
        plan.rule,
        plan.threshold,
        statistics.mean(each.updates for each in runs),
        statistics.mean(kept / max(1, kept + each.updates) for kept, each in zip(withheld, runs, strict=True)),
        statistics.mean(each.uplink_bytes / 1000 for each in runs),
        statistics.mean(each.score for each in runs),
    )


def main() -> None:
    """Run every rule, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits", help="a recipe")
    parser.add_argument("--data", default="digits", help="digits, or a file of samples")
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time, for each run")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for plan in plans():
        rows.append(row(plan, [run(options, plan, seed) for seed in range(1, options.seeds + 1)]))
        print(" ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(rows[-1]).items()), flush=True)
    print(json.dumps({"task": options.task, "rows": [msgspec.structs.asdict(each) for each in rows]}))


if __name__ == "__main__":
    main()
