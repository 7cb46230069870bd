"""What a fifth of a fleet that is hostile does to it: `python -m benchmarks.byzantine [--data digits]`.

Accuracy in per cent of the model to use, for each way to make versions and each attack (`attacks.py`). Digits chose
what is chosen by it; MNIST and notMNIST show it (`--data mnist --data-dir FOLDER`). `default` names no setting of
[aggregation], `mean` only that none is suspicious, `temper` that suspicious updates always count together as one
device, `quarantine` that they are held, which nobody looks at, `recipe` takes the recipe's own; the others are `aced`
with and without a rule, or `fedbuff` with one.
`zeno` and `fltrust` have eight more devices, which are trusted, all with the same hundred samples of all classes that
none of the others has. `rounds_of_hostile`, in the last line, is which share of all rounds hostile devices do where
everybody trains all the time, as fleets of up to twenty do.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.byzantine.attacks import ATTACKS, NOBODY
from benchmarks.byzantine.fleets import Field, Scenario, prepared
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import RobustPlan
from workbench.data.partition import DIRICHLET_CONCENTRATION


def _aced(robust: RobustPlan) -> AggregationPlan:
    return AggregationPlan(strategy="aced", robust=robust)


PLANS: Final[Mapping[str, AggregationPlan | None]] = {
    "default": AggregationPlan(),
    "recipe": None,
    "mean": AggregationPlan(quarantine=QuarantinePlan(action="off")),
    "temper": AggregationPlan(quarantine=QuarantinePlan(action="temper")),
    "quarantine": AggregationPlan(quarantine=QuarantinePlan()),
    "aced": AggregationPlan(strategy="aced"),
    "median": _aced(RobustPlan("median")),
    "trimmed_mean": _aced(RobustPlan("trimmed_mean")),
    "geometric_median": _aced(RobustPlan("geometric_median")),
    "krum": _aced(RobustPlan("krum")),
    "multi_krum": _aced(RobustPlan("multi_krum")),
    "bulyan": _aced(RobustPlan("bulyan")),
    "centred_clipping": _aced(RobustPlan("centred_clipping")),
    "spectral": _aced(RobustPlan("spectral")),
    "zeno": _aced(RobustPlan("zeno")),
    "fltrust": _aced(RobustPlan("fltrust")),
    "fedbuff, zeno": AggregationPlan(robust=RobustPlan("zeno")),
    "fedbuff, fltrust": AggregationPlan(robust=RobustPlan("fltrust")),
    "median, buckets of 2": _aced(RobustPlan("median", bucket_size=2)),
    "spectral, buckets of 2": _aced(RobustPlan("spectral", bucket_size=2)),
}
QUICK_PLANS: Final = ("default", "median", "centred_clipping")
QUICK_ATTACKS: Final = (NOBODY, "sign_flip", "collusion")
QUICK_UPDATES: Final = 150
FLEET_SHARE: Final = 5
"""One of so many devices is hostile."""


def measured(field: Field, plans: list[str], attacks: list[str], scenario: Scenario) -> dict[str, dict[str, float]]:
    """By plan and attack, and a line for each."""
    found: dict[str, dict[str, float]] = {}
    for plan in plans:
        for attack in attacks:
            started = time.monotonic()
            summary = field.run(PLANS[plan], attack, scenario).summary
            score = round(100 * summary.score, 1)
            found.setdefault(plan, {})[attack] = score
            more = {"refused": sum(each.times for each in summary.refused.values()), "collapses": summary.collapses}
            more |= {"held": summary.held, "tempered": summary.tempered}
            seconds = round(time.monotonic() - started, 1)
            line = {"plan": plan, "attack": attack, "accuracy": score, "versions": summary.versions}
            print(json.dumps(line | more | {"updates": summary.updates, "seconds": seconds}), flush=True)
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "mnist", "notmnist"), default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--plans", nargs="*", choices=PLANS)
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hostile", type=int, help="devices; left out: a fifth")
    parser.add_argument("--concentration", type=float, default=DIRICHLET_CONCENTRATION, help="of devices' labels")
    parser.add_argument("--quick", action="store_true", help="some of it, within a minute")
    given = parser.parse_args()
    plans = given.plans or (QUICK_PLANS if given.quick else list(PLANS))
    attacks = given.attacks or (QUICK_ATTACKS if given.quick else ATTACKS)
    updates = QUICK_UPDATES if given.quick else given.updates
    hostile = given.devices // FLEET_SHARE if given.hostile is None else given.hostile
    scenario = Scenario(given.devices, hostile, updates, given.seed, given.concentration)
    with prepared(given.data, given.data_dir) as field:
        found = measured(field, list(plans), list(attacks), scenario)
        classes = round(field.classes_a_device(scenario), 2)
        rounds = round(field.rounds_of_hostile(scenario), 3)
    about = {"data": given.data, "devices": scenario.devices, "hostile": scenario.hostile, "updates": scenario.updates}
    about |= {"seed": scenario.seed, "concentration": scenario.concentration, "classes_a_device": classes}
    about |= {"rounds_of_hostile": rounds}
    print(json.dumps(about | {"accuracy": found}))


if __name__ == "__main__":
    main()
