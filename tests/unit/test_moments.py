"""Moments: sums that say how values are distributed, and add up to those of all together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fleet_protocol.codec import Moments, decode_moments, pooled
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.sample_rules import LARGEST_FLOAT32

COLUMNS = 3
FINITE = st.floats(-1e6, 1e6, width=32)
TABLES = st.lists(
    st.integers(1, 6).flatmap(lambda rows: arrays(np.float32, (rows, COLUMNS), elements=FINITE)), min_size=1, max_size=5
)


@given(TABLES)
def test_moments_of_parts_are_those_of_the_whole(tables):
    whole = np.concatenate(tables).astype(np.float64)
    found = pooled([Moments.of(table) for table in tables])
    assert found.counts.tolist() == [len(whole)] * COLUMNS
    assert np.allclose(found.means, whole.mean(axis=0), rtol=1e-12, atol=1e-9)
    assert np.allclose(found.deviations, whole.std(axis=0), rtol=1e-6, atol=1e-3)


@given(TABLES, st.randoms(use_true_random=False))
def test_order_of_parts_does_not_matter_to_the_last_bit(tables, random):
    parts = [Moments.of(table) for table in tables]
    shuffled = random.sample(parts, len(parts))
    assert pooled(parts).encode() == pooled(shuffled).encode()


def test_missing_values_do_not_count():
    found = Moments.of(np.array([[1, np.nan], [3, np.nan], [np.nan, np.nan]], np.float32))
    assert found.counts.tolist() == [2, 0]
    assert (found.means.tolist(), found.deviations.tolist()) == ([2.0, 0.0], [1.0, 0.0])


def test_largest_values_of_float32_do_not_overflow():
    found = Moments.of(np.array([[LARGEST_FLOAT32], [-LARGEST_FLOAT32]] * 1000, np.float32))
    assert pooled([found] * 1000).deviations == pytest.approx([LARGEST_FLOAT32], rel=1e-6)


def test_fewer_values_are_of_the_same_distribution():
    found = Moments.of(np.arange(10, dtype=np.float32)[:, np.newaxis])
    less = found.weighing(np.array([4.0]))
    assert less.counts.tolist() == [4.0]
    assert less.deviations == pytest.approx(found.deviations)


def test_moments_are_read_as_they_were_written():
    found = Moments.of(np.array([[1, 2, 3], [4, 5, 7]], np.float32))
    assert decode_moments(found.encode(), 3).encode() == found.encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(bytes(23), Reason.WRONG_SHAPE), (bytes(48), Reason.WRONG_SHAPE)]
    + [(np.array([1, value, 0], "<f8").tobytes(), Reason.NOT_FINITE) for value in (np.nan, np.inf)],
)
def test_other_bytes_are_refused(data, reason):
    with pytest.raises(ProtocolError) as refused:
        decode_moments(data, 1)
    assert refused.value.reason is reason
