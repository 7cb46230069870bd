"""Two counts of what noise lets be told, ours and Opacus's, of the same steps: `python -m benchmarks.accountants`.

Rényi divergences are compared with Opacus's (`fleet_protocol.privacy.renyi` with its `RDPAccountant`, both at our
orders; its own have fractions, by which it finds up to a sixth less), and tight
epsilons with tight ones (dp-accounting's privacy loss distributions with its `PRVAccountant`, whose result may be too
large by `PRV_ERROR` of our epsilon). Opacus is in an environment that this makes (`benchmarks.opacus_child`).

Prints a line for each point of the grid, and the largest differences as one JSON object at the end. The exit code is 1
where any is above `ALLOWED`.
"""

import argparse
import itertools
import json
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.footprint.environments import environment_with
from broker_coordinator.aggregation.privacy_loss import tight_epsilon
from fleet_protocol.privacy.renyi import ORDERS, Mechanism, StepsTaken, divergences_of, epsilon_of

PACKAGE = "opacus==1.6.0"
NOISE = (0.6, 0.8, 1.1, 2.0, 4.0)
RATES = (0.01, 0.05, 0.2, 1.0)
STEPS = (1, 50, 1000, 10_000)
DELTA = 1e-5
LARGEST = 50.0
"""Epsilons beyond it promise nothing, and no accountant is made for them."""
ALLOWED = 0.02
PRV_ERROR = 0.002


def row_of(noise: float, rate: float, steps: int) -> dict[str, float]:
    """Our own counts of one point."""
    mechanism = Mechanism(noise, rate)
    tight = tight_epsilon(mechanism, steps, DELTA)
    if tight is None:
        raise SystemExit("dp-accounting is missing; pip install 'edgeflock[privacy]'")
    renyi = epsilon_of(divergences_of([StepsTaken(mechanism, steps)]), DELTA)
    return {"noise_multiplier": noise, "sampling_rate": rate, "steps": steps, "renyi": renyi, "tight": tight}


def opacus_counts(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Opacus's counts of the same points."""
    python = environment_with("opacus-1.6", PACKAGE, f"torch=={version('torch').partition('+')[0]}")
    child = Path(__file__).with_name("opacus_child.py")
    asked = json.dumps({"delta": DELTA, "error": PRV_ERROR, "orders": ORDERS, "points": rows})
    done = subprocess.run([python, child], input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{child.name} failed: {done.stderr.strip().splitlines()[-1]}")
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def differences(rows: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, float]:
    """The largest of each kind, as a share of Opacus's epsilon."""
    return {
        kind: max(abs(row[kind] / other[kind] - 1) for row, other in zip(rows, theirs, strict=True))
        for kind in ("renyi", "tight")
    }


def main() -> None:
    """Compare, print, and end with 1 where ours and theirs are too far apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    grid = [row_of(*point) for point in itertools.product(NOISE, RATES, STEPS)]
    rows = [row for row in grid if 0 < row["tight"] <= LARGEST]
    theirs = opacus_counts(rows)
    for row, other in zip(rows, theirs, strict=True):
        print(json.dumps(row | {f"opacus_{kind}": value for kind, value in other.items()}))
    found = differences(rows, theirs)
    left_out = len(grid) - len(rows)
    print(json.dumps({"delta": DELTA, "points": len(rows), "left_out": left_out, "largest_difference": found}))
    raise SystemExit(int(max(found.values()) > ALLOWED))


if __name__ == "__main__":
    main()
