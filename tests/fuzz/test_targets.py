"""Every fuzz target: seeds damaged by a fixed generator, and coverage-guided fuzzing, a minute over all of them."""

import random

import pytest

from tests.fuzz.run import fuzz_in_child
from tests.fuzz.targets import TARGETS

INPUTS = 1500
TRACED_INPUTS = INPUTS // 5  # where every allocation is traced
FUZZ_SECONDS = 1  # for each target; `make fuzz` takes longer
EXTREMES = [b"\xff" * 8, bytes(8), b"\x80" * 6, b"\x7f\x80", b"\x1b" + b"\xff" * 8, b"[", b"{", b"\x28\xb5\x2f\xfd"]


def damaged(seed: bytes, generator: random.Random) -> bytes:
    """A few stretches replaced, repeated, cut out or swapped for extremes; mostly near the front, where lengths are."""
    data = bytearray(seed)
    for _ in range(generator.randint(1, 4)):
        start = int(len(data) * generator.random() ** 2)
        length = generator.randint(0, 8)
        instead = generator.choice([*EXTREMES, generator.randbytes(length), bytes(data[:length]), b""])
        data[start : start + length] = instead
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_ends_in_a_value_or_a_refusal(name):
    target, generator = TARGETS[name], random.Random(1)
    for seed in target.seeds:
        target.check(seed)
    for _ in range(TRACED_INPUTS if name.endswith("_memory") else INPUTS):
        target.check(damaged(generator.choice(target.seeds), generator))


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_coverage_guided_fuzzing_finds_nothing(name, tmp_path):
    assert fuzz_in_child(name, FUZZ_SECONDS, tmp_path) > 0
