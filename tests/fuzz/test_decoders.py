"""Every fuzz target under hypothesis: random bytes, and valid ones with stretches replaced, repeated or cut out."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

EXAMPLES = 800
TRACED_EXAMPLES = EXAMPLES // 5  # where every allocation is traced
EXTREMES = [b"\xff" * 8, bytes(8), b"\x80" * 6, struct.pack("<f", math.nan), b"\x1b" + b"\xff" * 8, b"[", b"-1", b"1e9"]


def damaged(valid: list[bytes]) -> st.SearchStrategy[bytes]:
    """Random bytes, or valid ones with a few stretches replaced, repeated, cut out or swapped for extremes."""
    instead = st.binary(max_size=12) | st.sampled_from(EXTREMES)
    stretch = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), instead)

    def cut_in(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for where, length, instead in edits:
            start = int(where * (len(data) + 1))
            data = data[:start] + instead + data[start + length :]
        return data

    return st.binary(max_size=200) | st.builds(
        cut_in, st.sampled_from(valid), st.lists(stretch, min_size=1, max_size=4)
    )


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes_the_end_is_a_value_or_a_refusal(name):
    target = TARGETS[name]

    @given(damaged(target.seeds))
    @settings(max_examples=TRACED_EXAMPLES if name.endswith("_memory") else EXAMPLES, database=None)
    def holds(data):
        target.check(data)

    holds()
