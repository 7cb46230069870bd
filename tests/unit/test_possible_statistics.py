"""Honest feature statistics are admitted in every precision; covariances that no samples have are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.consumers.possible_statistics import check_possible
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.codec.class_statistics import rounding_norm
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.solved_head import SolvedHead
from tests.support.queries import described

TASK = described(LabelSchema(4))
PRECISIONS = ["float64", "float32", "float16"]
LARGEST = 1000.0
CLAIMED = 400
"""Samples of who lies."""


def plan(precision: str) -> SolvedHead:
    return SolvedHead(solver="ridge", precision=precision, largest_feature=LARGEST)


def read(sent: ClassStatistics, precision: str) -> ClassStatistics:
    classes, size = sent.means.shape
    return decode_class_statistics(sent.encode(precision, "ridge"), classes, size, precision, "ridge")


def check(statistics: ClassStatistics, precision: str) -> None:
    check_possible(statistics, TASK, plan(precision))


def features_of(generator: np.random.Generator, samples: int, size: int, rank: int, scale: float) -> np.ndarray:
    """float32[N, D] within -100 to 100, of so many independent directions; some features never change, some repeat."""
    mixed = generator.normal(0, 1, (samples, rank)) @ generator.normal(0, 1, (rank, size)) + generator.normal(
        0, 1, size
    )
    features = (scale * mixed).clip(-100, 100)
    features[:, generator.random(size) < 0.1] = scale
    return features[:, generator.integers(0, size, size)].astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    precision=st.sampled_from(PRECISIONS),
    shape=st.tuples(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40)),
    scale=st.sampled_from([1e-25, 1e-12, 1e-3, 1.0, 90.0]),
)
def test_statistics_of_samples_are_admitted_whatever_rounding_makes_of_them(seed, precision, shape, scale):
    generator = np.random.default_rng(seed)
    features = features_of(generator, *shape, scale)
    exact = ClassStatistics.of(features, generator.integers(0, 4, len(features)), 4, "ridge")
    found = read(exact, precision)
    check(found, precision)
    lost = np.linalg.norm(found.covariance - exact.covariance)
    assert lost <= rounding_norm(found.covariance, precision)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_statistics_behind_a_backbone_are_admitted(precision):
    generator = np.random.default_rng(7)
    features = features_of(generator, 60, 1280, 20, 1.0)
    check(read(ClassStatistics.of(features, generator.integers(0, 4, 60), 4, "ridge"), precision), precision)


def claimed(covariance: np.ndarray, samples: int = CLAIMED) -> ClassStatistics:
    size = len(covariance)
    counts = np.array([samples - 3, 1, 1, 1])
    return ClassStatistics(counts, np.zeros((4, size)), covariance[np.tril_indices(size)])


def refusal_of(statistics: ClassStatistics, precision: str) -> str:
    with pytest.raises(ProtocolError) as refused:
        check(statistics, precision)
    assert refused.value.reason is Reason.OUT_OF_BOUNDS
    return str(refused.value)


@pytest.mark.parametrize("size", [2, 12, 96])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_matrix_that_is_more_negative_than_rounding_makes_one_is_refused(precision, size):
    generator = np.random.default_rng(size)
    basis = np.linalg.qr(generator.normal(0, 1, (size, size)))[0]
    eigenvalues = generator.uniform(0.5, 1.0, size)
    arithmetic = (CLAIMED + size) * np.finfo(np.float64).eps * eigenvalues.sum()
    most = rounding_norm(np.diag(eigenvalues), precision) + arithmetic
    within, beyond = (claimed(basis @ np.diag([-share * most, *eigenvalues[1:]]) @ basis.T) for share in (0.5, 1.5))
    check(within, precision)
    assert f"the covariance of {size} features is not positive semi-definite" in refusal_of(beyond, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_covariances_beyond_all_variances_buy_no_tolerance(precision):
    size = 60
    matrix = np.full((size, size), 100.0)
    matrix[np.diag_indices(size)] = 1.0
    assert "not positive semi-definite" in refusal_of(claimed(matrix), precision)


@given(st.sampled_from(PRECISIONS), st.integers(4, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_matrix_of_more_directions_than_samples_allow_is_refused(precision, size, rank, seed):
    """So many equal eigenvalues: what samples one fewer than it takes can't have."""
    rank = min(rank, size)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(0, 1, (size, rank)))[0]
    covariance = basis @ basis.T
    check(read(claimed(covariance, rank + 4), precision), precision)
    if rank > 1:
        words = refusal_of(read(claimed(covariance, rank + 3), precision), precision)
        assert f"more directions than {rank + 3} samples of 4 classes have: {rank - 1}" in words
