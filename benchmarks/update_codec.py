"""How close updates come to their entropy, and how fast: `python -m benchmarks.update_codec --data-dir FOLDER`.

The entropy per kept entry is log2(n choose k) / k, what uniformly random positions cost at least, plus the bits that
the values take: a sign each, and two bytes of scale per tensor. Structure in real deltas may cost less.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.deltas import CNN_WIDTHS, Delta, digits_round, mnist_round, noise
from fleet_protocol.codec import decode_update, encode_update, inspect_update
from fleet_protocol.update_plan import UpdatePlan

PARAMETERS = (10_000, 100_000, 1_000_000)
KEEP_FRACTIONS = (0.001, 0.01, 0.05)
REPETITIONS = 15


@dataclass(frozen=True, slots=True)
class Case:
    """One delta at one keep fraction, ternary. Rates are of dense float32 input, by the least processor time of
    `REPETITIONS`.
    """

    positions: str
    parameters: int
    keep_fraction: float
    bits_per_kept_entry: float
    entropy_bits: float
    overhead_ratio: float
    encode_mb_s: float
    decode_mb_s: float
    compression_ratio: float


def position_entropy(size: int, count: int) -> float:
    """log2(size choose count)."""
    return (math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)) / math.log(2)


def measure(delta: Delta, keep_fraction: float) -> Case:
    """Pack and unpack one delta."""
    plan = UpdatePlan(keep_fraction)
    generator = np.random.default_rng(0)
    packed = encode_update(delta.vector, delta.shapes, plan, generator).packed
    update, stages = inspect_update(packed, delta.shapes)
    kept = update.indices.size
    dense_bytes = 4 * delta.vector.size
    entropy = position_entropy(delta.vector.size, kept) + stages.scale_bits + kept
    encode_seconds = best_seconds(lambda: encode_update(delta.vector, delta.shapes, plan, generator))
    decode_seconds = best_seconds(lambda: decode_update(packed, delta.shapes))
    return Case(
        positions=delta.positions,
        parameters=delta.vector.size,
        keep_fraction=keep_fraction,
        bits_per_kept_entry=round(8 * len(packed) / kept, 3),
        entropy_bits=round(entropy / kept, 3),
        overhead_ratio=round(8 * len(packed) / entropy, 4),
        encode_mb_s=round(dense_bytes / encode_seconds / 1e6),
        decode_mb_s=round(dense_bytes / decode_seconds / 1e6),
        compression_ratio=round(dense_bytes / len(packed), 1),
    )


def best_seconds(work: Callable[[], object]) -> float:
    """The shortest of some runs: the one that others disturbed least."""
    durations = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        work()
        durations.append(time.process_time() - started)
    return min(durations)


def main() -> None:
    """Measure every case and print it, then all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder with the MNIST test images; without it, digits alone")
    data = parser.parse_args().data_dir
    deltas = [*map(noise, PARAMETERS), digits_round()]
    if data:
        deltas += [mnist_round(parameters, data) for parameters in CNN_WIDTHS]
    cases = [asdict(measure(delta, keep_fraction)) for delta in deltas for keep_fraction in KEEP_FRACTIONS]
    for case in cases:
        print("  ".join(f"{name} {value}" for name, value in case.items()))
    print(json.dumps({"cases": cases}))


if __name__ == "__main__":
    main()
