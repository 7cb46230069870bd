"""Updates encrypted under CKKS and added up unread, for `benchmarks.homomorphic`: JSON in, JSON out. Runs without
edgeflock.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tenseal

DEGREE, MODULI, SCALE = 4096, [54, 55], 2.0**40
"""128 bits of security at this degree take 109 bits of moduli at most (Albrecht et al. 2021, "Homomorphic encryption
standard", table 1); sums need one modulus, and SEAL's public-key encryption another.
"""
SLOTS = DEGREE // 2
REPETITIONS = 3


def least_ms(call: Callable[[], Any]) -> tuple[float, Any]:
    """The least processor time of some calls, in milliseconds, and what the last one gave."""
    least, result = float("inf"), None
    for _ in range(REPETITIONS):
        began = time.process_time()
        result = call()
        least = min(least, time.process_time() - began)
    return 1000 * least, result


def encrypted(context: Any, update: np.ndarray[Any, Any]) -> list[bytes]:
    """What a device sends: a ciphertext for every 2,048 entries."""
    return [tenseal.ckks_vector(context, update[at : at + SLOTS]).serialize() for at in range(0, update.size, SLOTS)]


def added(context: Any, updates: list[list[bytes]]) -> list[bytes]:
    """What the coordinator makes of them without the secret key."""
    sums = []
    for parts in zip(*updates, strict=True):
        total = tenseal.ckks_vector_from(context, parts[0])
        for part in parts[1:]:
            total += tenseal.ckks_vector_from(context, part)
        sums.append(total.serialize())
    return sums


def decrypted(context: Any, sums: list[bytes]) -> np.ndarray[Any, Any]:
    """What the key holder gets."""
    return np.concatenate([tenseal.ckks_vector_from(context, part).decrypt() for part in sums])


def cohort(entries: int, devices: int, clip: float) -> dict[str, object]:
    """One cohort, from updates to their sum."""
    holder = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=MODULI)
    holder.global_scale = SCALE
    public = tenseal.context_from(
        holder.serialize(save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
    )
    assert not public.has_secret_key()
    generator = np.random.default_rng(entries + devices)
    updates = [np.clip(generator.normal(0, clip / 3, entries), -clip, clip) for _ in range(devices)]
    device_ms, first = least_ms(lambda: encrypted(public, updates[0]))
    sent = [first, *(encrypted(public, update) for update in updates[1:])]
    coordinator_ms, sums = least_ms(lambda: added(public, sent))
    holder_ms, total = least_ms(lambda: decrypted(holder, sums))
    error = np.abs(total - np.sum(updates, axis=0)).max()
    return {
        "entries": entries,
        "devices": devices,
        "device_sends": sum(map(len, first)),
        "holder_receives": sum(map(len, sums)),
        "device_ms": round(device_ms, 1),
        "coordinator_ms": round(coordinator_ms, 1),
        "holder_ms": round(holder_ms, 1),
        "largest_error_in_clips": float(error / clip),
    }


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    json.dump([cohort(entries, devices, asked["clip"]) for entries, devices in asked["cohorts"]], sys.stdout)


if __name__ == "__main__":
    main()
