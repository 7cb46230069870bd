"""Sums of encrypted updates beside sums of masked ones: `python -m benchmarks.homomorphic [--quick]`.

CKKS of TenSEAL (SEAL inside), in an environment that this makes (`benchmarks.homomorphic_child`): devices encrypt under
a key holder's public key, the coordinator adds what it can't read, the key holder decrypts the sum. Masks are those of
`benchmarks.secure_aggregation` with three helpers, of the same entries and cohorts, measured in the same run. Bytes are
without MQTT, envelope and signatures, milliseconds are processor time, the least of three. Prints one JSON object as
its last line.
"""

import argparse
import itertools
import json
import subprocess
from dataclasses import asdict
from pathlib import Path

from benchmarks.footprint.environments import environment_with
from benchmarks.secure_aggregation import measure

PACKAGES = ("tenseal==0.3.18", "numpy")
ENTRIES, COHORTS = (5_000, 50_890), (20, 50)
CLIP = 0.05
MASK_HELPERS, COLLUDING = 3, 2
KEPT = ("device_sends_bytes", "helper_sends_bytes", "device_ms", "coordinator_sum_ms", "helper_answer_ms")


def encrypted(cohorts: list[tuple[int, int]]) -> list[dict[str, object]]:
    """One row a cohort, of CKKS."""
    python = environment_with("tenseal-0.3", *PACKAGES)
    child = Path(__file__).with_name("homomorphic_child.py")
    asked = json.dumps({"clip": CLIP, "cohorts": cohorts})
    done = subprocess.run([python, child], input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{child.name} failed: {done.stderr.strip()[-2000:]}")
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print one line a cohort, then everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest cohort alone")
    options = parser.parse_args()
    cohorts = list(itertools.product(ENTRIES, COHORTS))[: 1 if options.quick else None]
    rows = []
    for row, (entries, devices) in zip(encrypted(cohorts), cohorts, strict=True):
        masks = asdict(measure(MASK_HELPERS, COLLUDING, entries, devices))
        rows.append(row | {"masks": {name: masks[name] for name in KEPT}})
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"benchmark": "homomorphic", "cohorts": rows}))


if __name__ == "__main__":
    main()
