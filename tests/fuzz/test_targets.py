"""Every fuzz target: seeds damaged by a fixed generator, and coverage-guided fuzzing, a minute over all of them."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

INPUTS = 1500
FUZZ_SECONDS = 3  # for each target: a minute over all of them
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
    for _ in range(INPUTS):
        target.check(damaged(generator.choice(target.seeds), generator))


@pytest.mark.parametrize("name", TARGETS)
def test_coverage_guided_fuzzing_finds_nothing(name):
    command = [sys.executable, "-m", "tests.fuzz.run", "--targets", name, "--seconds", str(FUZZ_SECONDS)]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    inputs = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in run.stdout.splitlines()}
    assert set(inputs) == {name, "all"}
    assert inputs[name] > 0
