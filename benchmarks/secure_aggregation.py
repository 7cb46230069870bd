"""What secure aggregation costs: `python -m benchmarks.secure_aggregation [--flower] [--quick]`.

Bytes that each party sends and receives, and processor milliseconds, for dense updates of 8 bits at the sizes and
cohorts of docs/secure-aggregation.md, 30 % of the devices gone. Each time is the least of `REPETITIONS`, for sums and
helpers of `SUM_REPETITIONS`. Every sum is compared with that of the plain levels. `plain_bytes` is the same
update without masks: one level in 8 bits an entry. `--flower` runs Flower's SecAgg+ on the same numbers of entries and
devices, in an environment that it makes (`benchmarks.secagg_plus_child`): minutes, and a line for each. A round of
SecAgg+ in which a device has lost too many of its neighbours gives no mean: it is run again, `TRIES` times at most.
`--quick` takes the smallest sizes alone.
"""

import argparse
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from msgspec.structs import replace
from nacl.utils import random as random_bytes

from benchmarks.footprint.environments import environment_with
from benchmarks.footprint.flower_side import PACKAGE
from fleet_host.seal import encryptions_of_zero
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import SumRequest, encode_payload
from fleet_protocol.privacy.encryption_plan import chunks_of
from secure_aggregation.coordinator import AdmittedUpdate, CohortSum, admitted, proposed_set, unmasked
from secure_aggregation.device import MaskedRound, masked_round
from secure_aggregation.helper.claims import ClaimsInMemory
from secure_aggregation.helper.key_holder import KeyHolder
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy
from secure_aggregation.manifest import field_of, seed_plan_of
from secure_aggregation.messages import CohortManifest, CohortSet
from secure_aggregation.positions import shared_positions
from secure_aggregation.signatures import signed

Result = TypeVar("Result")

ENTRIES = (5_000, 50_890)
COHORTS = (20, 50, 200)
PLANS = ((3, 2), (4, 1))
"""Helpers, and how many of them may collude: the simple mode of three, and four of which one may be dead."""
GONE = 0.3
BITS = 8
WEIGHTS = (1, 2, 3, 4)
HALTED = "the round was halted"
"""What `secagg_plus_child` says of one."""
OWNER = HelperPolicy(fewest_devices=10, fewest_per_weight=3)
"""14 devices of 20 are left, which have four weights by turns."""
NO_KEY = (b"", b"")
REPETITIONS = 15
SUM_REPETITIONS = 3
TRIES = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One cohort. `set_devices` are those that are left of it. Bytes are without MQTT and the envelope."""

    helpers: int
    colluding: int
    entries: int
    devices: int
    set_devices: int
    modulus_bits: int
    device_sends_bytes: int
    seeds_and_boxes_bytes: int
    signed_seeds_bytes: int
    device_receives_bytes: int
    plain_bytes: int
    helper_receives_bytes: int
    helper_sends_bytes: int
    device_ms: float
    helper_sign_ms: float
    helper_answer_ms: float
    coordinator_admission_ms: float
    coordinator_sum_ms: float
    sum_is_exact: bool


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everybody of one cohort, whose updates have been made and admitted."""

    manifest: CohortManifest
    coordinator: SigningKey
    helper_keys: tuple[SigningKey, ...]
    device_keys: dict[str, SigningKey]
    rounds: dict[str, MaskedRound]
    admitted: dict[str, AdmittedUpdate]

    def helper(self, number: int, holder: KeyHolder | None = None) -> MaskHelper:
        """A helper that has claimed nothing."""
        roster = {name: key.verify_key for name, key in self.device_keys.items()}
        key, coordinator = self.helper_keys[number], self.coordinator.verify_key
        return MaskHelper(key, coordinator, roster, OWNER, ClaimsInMemory(), holder=holder)

    def request(self, cohort_set: CohortSet) -> SumRequest:
        """What helpers are asked."""
        seeds = tuple(self.admitted[member.device].seeds for member in cohort_set.members)
        return SumRequest(signed(self.coordinator, self.manifest), signed(self.coordinator, cohort_set), seeds)


def least_ms(repetitions: int, call: Callable[[], Result]) -> tuple[float, Result]:
    """The least processor time of so many calls, in milliseconds, and what the last one gave."""
    least = float("inf")
    for _ in range(repetitions):
        begun = time.process_time()
        result = call()
        least = min(least, time.process_time() - begun)
    return round(1000 * least, 3), result


def manifest_for(helpers: tuple[SigningKey, ...], colluding: int, entries: int, devices: int) -> CohortManifest:
    """A dense cohort of 8 bits."""
    return CohortManifest(
        number=1, task="benchmark", generation=0, oldest_version=0, newest_version=9, parameters=entries,
        entries=entries, positions="dense", positions_seed=0, top_positions=b"", clip=1.0, bits=BITS, weights=WEIGHTS,
        fewest_devices=10, most_devices=devices, fewest_per_weight=2,
        helpers=tuple(bytes(key.verify_key) for key in helpers), colluding=colluding,
    )  # fmt: skip


def key_of(name: str) -> SigningKey:
    """A key that follows from a name."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def device_round(
    manifest: CohortManifest, name: str, vector: np.ndarray[tuple[int], np.dtype[np.float32]], public: bytes = b""
) -> MaskedRound:
    """What a device does, from its update to the signed message; under a key holder's `public` key, if there is one."""
    zeros = encryptions_of_zero(public, chunks_of(manifest.entries)) if public else None
    return masked_round(
        manifest, shared_positions(manifest), vector,
        key=key_of(name), device=name, sequence=1, base_version=9, random_bytes=random_bytes,
        zeros=zeros,
    )  # fmt: skip


def gathered(helpers: int, colluding: int, entries: int, devices: int, key: tuple[bytes, bytes] = NO_KEY) -> Fleet:
    """Make and admit every device's update; with the hash and the public part of helper 0's encryption `key`."""
    helper_keys = tuple(key_of(f"helper-{number}") for number in range(helpers))
    manifest = replace(manifest_for(helper_keys, colluding, entries, devices), encryption_key=key[0])
    generator = np.random.default_rng(entries + devices)
    keys = {f"pi-{number:04}": key_of(f"pi-{number:04}") for number in range(devices)}
    vectors = {name: generator.normal(0, 0.3, entries).astype(np.float32) for name in keys}
    rounds = {name: device_round(manifest, name, vector, key[1]) for name, vector in vectors.items()}
    taken = {name: admitted(manifest, done.update, name, keys[name].verify_key) for name, done in rounds.items()}
    return Fleet(manifest, key_of("coordinator"), helper_keys, keys, rounds, taken)


def measure(helpers: int, colluding: int, entries: int, devices: int) -> Case:
    """Run one cohort, from updates to the sum."""
    fleet = gathered(helpers, colluding, entries, devices)
    manifest = fleet.manifest
    name = next(iter(fleet.device_keys))
    vector = np.random.default_rng(1).normal(0, 0.3, entries).astype(np.float32)
    device_ms, done = least_ms(REPETITIONS, lambda: device_round(manifest, name, vector))
    key = fleet.device_keys[name].verify_key
    admission_ms, _ = least_ms(REPETITIONS, lambda: admitted(manifest, done.update, name, key))
    cohort_set = chosen_set(fleet)
    request = fleet.request(cohort_set)
    sign_ms, _ = least_ms(SUM_REPETITIONS, lambda: fleet.helper(0).sign(request))
    signatures = [fleet.helper(number).sign(request) for number in range(seed_plan_of(manifest).signatures_needed)]
    answer_ms, answer = least_ms(SUM_REPETITIONS, lambda: fleet.helper(0).answer(request, signatures))
    needed = seed_plan_of(manifest).answers_needed
    answers = [answer, *(fleet.helper(number).answer(request, signatures) for number in range(1, needed))]
    sum_ms, total = least_ms(SUM_REPETITIONS, lambda: unmasked(manifest, cohort_set, fleet.admitted, answers))
    width = field_of(manifest).width
    return Case(
        helpers=helpers,
        colluding=colluding,
        entries=entries,
        devices=devices,
        set_devices=len(cohort_set.members),
        modulus_bits=width,
        device_sends_bytes=len(encode_payload(done.update)),
        seeds_and_boxes_bytes=boxes_bytes(fleet),
        signed_seeds_bytes=len(encode_payload(done.update.seeds)),
        device_receives_bytes=len(encode_payload(request.manifest)),
        plain_bytes=entries * BITS // 8,
        helper_receives_bytes=len(encode_payload(request)) + sum(len(encode_payload(one)) for one in signatures),
        helper_sends_bytes=len(encode_payload(answer)) + (len(encode_payload(signatures[0])) if signatures else 0),
        device_ms=device_ms,
        helper_sign_ms=sign_ms,
        helper_answer_ms=answer_ms,
        coordinator_admission_ms=admission_ms,
        coordinator_sum_ms=sum_ms,
        sum_is_exact=is_exact(fleet, cohort_set, total),
    )


def chosen_set(fleet: Fleet) -> CohortSet:
    """All but 30 % of the devices, their weights by turns."""
    left = list(fleet.admitted.values())[round(GONE * len(fleet.admitted)) :]
    return proposed_set(fleet.manifest, [(update, WEIGHTS[at % len(WEIGHTS)]) for at, update in enumerate(left)])


def boxes_bytes(fleet: Fleet) -> int:
    """The ephemeral key and all boxes of one device."""
    plan = seed_plan_of(fleet.manifest)
    return 32 + sum(16 + 16 * len(plan.held_by(helper)) for helper in range(plan.helpers))


def is_exact(fleet: Fleet, cohort_set: CohortSet, total: CohortSum) -> bool:
    """Whether the sum is that of the levels before they were masked."""
    plain = sum(member.weight * fleet.rounds[member.device].levels for member in cohort_set.members)
    return bool((total.levels == plain).all())


def flowers(entries: int, devices: int) -> dict[str, object]:
    """One round of SecAgg+, each party's share of it as `benchmarks.secagg_plus_child` prints it."""
    python = environment_with("flower-1.42", PACKAGE)
    child = Path(__file__).with_name("secagg_plus_child.py")
    for number in range(1, TRIES + 1):
        done = subprocess.run(
            [python, child, str(entries), str(devices), str(GONE)],
            env=os.environ | {"FLWR_TELEMETRY_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            measured: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
            return {"entries": entries, "devices": devices, "tries": number} | measured
        if HALTED not in done.stderr:
            break
    raise SystemExit(
        f"SecAgg+ with {entries} entries and {devices} devices gave no mean: {done.stderr.strip()[-2000:]}"
    )


def main() -> None:
    """Print one line a cohort, then everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower", action="store_true", help="compare with Flower's SecAgg+")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes alone")
    options = parser.parse_args()
    sizes = [(entries, devices) for entries in ENTRIES for devices in COHORTS][: 1 if options.quick else None]
    cases = []
    for helpers, colluding in PLANS:
        for entries, devices in sizes:
            case = measure(helpers, colluding, entries, devices)
            print(case, flush=True)
            cases.append(asdict(case))
    peers = []
    for entries, devices in sizes if options.flower else []:
        peers.append(flowers(entries, devices))
        print(peers[-1], flush=True)
    print(
        json.dumps({"benchmark": "secure_aggregation", "gone": GONE, "bits": BITS, "cohorts": cases, "flower": peers})
    )


if __name__ == "__main__":
    main()
