"""Sums of encrypted updates beside sums of masked ones: `python -m benchmarks.homomorphic [--ckks] [--quick]`.

A cohort with a key holder, which is its only helper, beside one with three mask helpers, of the same entries and
devices, 30 % of which are gone, in the same run; both by the code of the product. Every sum is compared with that of
the plain levels. Bytes are without MQTT and the envelope; milliseconds are processor time, the least of
`secure_aggregation`'s repetitions. `--ckks` encrypts the same updates under CKKS through TenSEAL's tensors, in an
environment that this makes (`benchmarks.homomorphic_child`). Prints one JSON object as its last line.
"""

import argparse
import hashlib
import itertools
import json
import subprocess
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from benchmarks.footprint.environments import environment_with
from benchmarks.secure_aggregation import (
    REPETITIONS,
    SUM_REPETITIONS,
    chosen_set,
    device_round,
    gathered,
    is_exact,
    least_ms,
    measure,
)
from fleet_host.seal import decrypted, new_key
from fleet_protocol.kinds import encode_payload
from secure_aggregation.coordinator import admitted, summed_ciphertext, unmasked
from secure_aggregation.encryption_key import write_encryption_key
from secure_aggregation.helper.key_holder import KeyHolder

PACKAGES = ("tenseal==0.3.18", "numpy")
ENTRIES, COHORTS = (5_000, 50_890), (20, 50)
CLIP = 0.05
MASK_HELPERS, COLLUDING = 3, 2
KEPT = (
    "plain_bytes",
    "device_sends_bytes",
    "helper_receives_bytes",
    "helper_sends_bytes",
    "device_ms",
    "coordinator_admission_ms",
    "coordinator_sum_ms",
    "helper_answer_ms",
    "sum_is_exact",
)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """One cohort with a key holder: named as in `secure_aggregation.Case`, and what the coordinator adds up besides."""

    entries: int
    devices: int
    key_file_bytes: int
    device_sends_bytes: int
    helper_receives_bytes: int
    helper_sends_bytes: int
    device_ms: float
    coordinator_admission_ms: float
    coordinator_adds_ms: float
    coordinator_sum_ms: float
    helper_answer_ms: float
    sum_is_exact: bool


def encrypted(entries: int, devices: int) -> Encrypted:
    """Run one cohort, from updates to the sum."""
    secret, public = new_key()
    fleet_key = gathered(1, 0, 1, 2).helper_keys[0]
    file = write_encryption_key(fleet_key, public)
    holder = KeyHolder(hashlib.sha256(file).digest(), partial(decrypted, secret))
    fleet = gathered(1, 0, entries, devices, (holder.key, public))
    manifest, name = fleet.manifest, next(iter(fleet.device_keys))
    vector = np.random.default_rng(1).normal(0, 0.3, entries).astype(np.float32)
    device_ms, done = least_ms(REPETITIONS, lambda: device_round(manifest, name, vector, public))
    device_key = fleet.device_keys[name].verify_key
    admission_ms, _ = least_ms(REPETITIONS, lambda: admitted(manifest, done.update, name, device_key))
    chosen = chosen_set(fleet)
    adds_ms, ciphertext = least_ms(
        SUM_REPETITIONS, lambda: summed_ciphertext(manifest, chosen, lambda device: fleet.rounds[device].update.values)
    )
    chosen = replace(chosen, ciphertext=hashlib.sha256(ciphertext).digest())
    request = fleet.request(chosen)
    answer_ms, answer = least_ms(SUM_REPETITIONS, lambda: fleet.helper(0, holder).answer(request, (), ciphertext))
    sum_ms, total = least_ms(SUM_REPETITIONS, lambda: unmasked(manifest, chosen, fleet.admitted, [answer]))
    return Encrypted(
        entries=entries,
        devices=devices,
        key_file_bytes=len(file),
        device_sends_bytes=len(encode_payload(done.update)),
        helper_receives_bytes=len(encode_payload(request)) + len(ciphertext),
        helper_sends_bytes=len(encode_payload(answer)),
        device_ms=device_ms,
        coordinator_admission_ms=admission_ms,
        coordinator_adds_ms=adds_ms,
        coordinator_sum_ms=sum_ms,
        helper_answer_ms=answer_ms,
        sum_is_exact=is_exact(fleet, chosen, total),
    )


def of_ckks(cohorts: list[tuple[int, int]]) -> list[dict[str, object]]:
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
    parser.add_argument("--ckks", action="store_true", help="compare with CKKS")
    parser.add_argument("--quick", action="store_true", help="the smallest cohort alone")
    options = parser.parse_args()
    cohorts = list(itertools.product(ENTRIES, COHORTS))[: 1 if options.quick else None]
    rows = []
    for entries, devices in cohorts:
        masks = asdict(measure(MASK_HELPERS, COLLUDING, entries, devices))
        rows.append(asdict(encrypted(entries, devices)) | {"masks": {name: masks[name] for name in KEPT}})
        print(json.dumps(rows[-1]), flush=True)
    ckks = of_ckks(cohorts) if options.ckks else []
    print(json.dumps({"benchmark": "homomorphic", "cohorts": rows, "ckks": ckks}))


if __name__ == "__main__":
    main()
