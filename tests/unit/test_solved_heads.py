"""Heads that are solved from what devices say of their features."""

from statistics import median

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.solved_heads import cholesky, most_counted, pooled, solve
from broker_coordinator.aggregation.solved_heads.cholesky import factor
from broker_coordinator.aggregation.solved_heads.cholesky import solve as solve_equations
from broker_coordinator.consumers.possible_statistics import check_possible
from fleet_protocol.codec import ClassStatistics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.solved_head import SolvedHead
from tests.support.queries import described
from tests.support.solved_heads import Featured, fleet, head_of, pooled_ridge

SOLVERS = ["ridge", "means", "gaussian"]
EXACT = SolvedHead(solver="ridge", precision="float64")


def whole(head) -> np.ndarray:
    return np.hstack([head.weight, head.bias[:, None]])


def accuracy(head, samples: Featured) -> float:
    return float((np.argmax(samples.features @ head.weight.T + head.bias, axis=1) == samples.labels).mean())


@given(
    seed=st.integers(0, 2**32 - 1),
    devices=st.integers(1, 20),
    classes_each=st.sampled_from([1, 2, None]),
    ridge=st.sampled_from([1e-3, 1.0, 50.0]),
)
def test_ridge_head_is_the_ridge_regression_of_all_samples_however_they_are_divided(seed, devices, classes_each, ridge):
    plan = SolvedHead(solver="ridge", ridge=ridge, precision="float64", most_times_median=0.0)
    samples = list(fleet(seed, devices, classes_each=classes_each))
    expected = pooled_ridge(samples, ridge)
    np.testing.assert_allclose(whole(head_of(samples, plan)), expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@given(seed=st.integers(0, 2**32 - 1), solver=st.sampled_from(SOLVERS), order=st.randoms())
def test_order_in_which_devices_came_changes_no_bit(seed, solver, order):
    plan = SolvedHead(solver=solver, draws=5)
    named = [(f"pi-{number}", device.statistics(4, plan)) for number, device in enumerate(fleet(seed, 6))]
    straight = solve(pooled(dict(named), solver, 100), plan).flat()
    order.shuffle(named)
    assert solve(pooled(dict(named), solver, 100), plan).flat().tobytes() == straight.tobytes()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("precision", ["float64", "float32", "float16"])
def test_every_solver_tells_classes_apart_at_every_precision(solver, precision):
    samples = list(fleet(3, 12, classes_each=2))
    head = head_of(samples, SolvedHead(solver=solver, precision=precision, ridge=0.1))
    features = np.concatenate([device.features for device in samples])
    everything = Featured(features, np.concatenate([device.labels for device in samples]))
    assert accuracy(head, everything) > 0.85


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("samples", [1, 2])
def test_one_device_with_hardly_a_sample_gives_a_head_of_finite_numbers(solver, samples):
    features, labels = np.zeros((samples, 8)), np.arange(samples, dtype=np.int64)
    head = head_of([Featured(features, labels)], SolvedHead(solver=solver, draws=3))
    assert np.isfinite(head.flat()).all()


@pytest.mark.parametrize("solver", ["means", "gaussian"])
def test_class_that_nobody_has_is_never_predicted(solver):
    samples = [Featured(device.features, device.labels % 2) for device in fleet(5, 4)]
    head = head_of(samples, SolvedHead(solver=solver))
    scores = samples[0].features @ head.weight.T + head.bias
    assert set(np.argmax(scores, axis=1)) <= {0, 1}


def test_device_with_more_samples_than_count_weighs_as_one_with_so_many():
    few, many = list(fleet(7, 2))
    statistics = {"few": few.statistics(4, EXACT), "many": many.statistics(4, EXACT)}
    bounded = pooled(statistics, "ridge", most_samples=2)
    assert bounded.counts.sum() == pytest.approx(4)
    assert pooled(statistics, "ridge", MAX_SAMPLES_PER_UPDATE).counts.sum() == len(few.labels) + len(many.labels)


def claiming(statistics: ClassStatistics, times: int) -> ClassStatistics:
    """The same statistics of so many times as many samples."""
    return ClassStatistics(statistics.counts * times, statistics.means, statistics.spread)


@pytest.mark.parametrize("solver", SOLVERS)
def test_device_that_claims_a_million_samples_weighs_as_three_usual_ones(solver):
    plan = SolvedHead(solver=solver, draws=5)
    statistics = {f"pi-{number}": device.statistics(4, plan) for number, device in enumerate(fleet(7, 9))}
    statistics["pi-0"] = claiming(statistics["pi-0"], MAX_SAMPLES_PER_UPDATE // statistics["pi-0"].samples)
    most = most_counted(statistics, plan, MAX_SAMPLES_PER_UPDATE)
    assert most == 3 * median(each.samples for each in statistics.values())
    others = sum(each.samples for name, each in statistics.items() if name != "pi-0")
    assert pooled(statistics, solver, most).samples == pytest.approx(others + most)


@given(seed=st.integers(0, 2**32 - 1), solver=st.sampled_from(SOLVERS), devices=st.integers(1, 9))
def test_while_nobody_exceeds_the_bound_no_bit_depends_on_it(seed, solver, devices):
    plan = SolvedHead(solver=solver, draws=5, most_times_median=40.0)  # of two to forty samples each
    samples = list(fleet(seed, devices))
    unbounded = msgspec.structs.replace(plan, most_times_median=0.0)
    assert head_of(samples, plan).flat().tobytes() == head_of(samples, unbounded).flat().tobytes()


def test_half_of_the_devices_at_least_never_exceed_the_bound_and_two_devices_never_do():
    few, many = (device.statistics(4, EXACT) for device in fleet(7, 2))
    statistics = {"few": few, "many": claiming(many, 1000)}
    assert most_counted(statistics, EXACT, MAX_SAMPLES_PER_UPDATE) >= statistics["many"].samples


def is_admitted(statistics: ClassStatistics, plan: SolvedHead) -> bool:
    try:
        check_possible(statistics, described(LabelSchema(4)), plan)
    except ProtocolError:
        return False
    return True


def lie_at_the_bound(place: int, plan: SolvedHead, size: int = 8) -> ClassStatistics:
    """Its largest variance is at one place; it is as negative as admission takes in the direction of the last two."""
    covariance = np.zeros((size, size))
    covariance[place, place] = 2e3
    counts = np.array([MAX_SAMPLES_PER_UPDATE, 0, 0, 0])
    least, most = 0.0, 2e3
    for _ in range(60):
        covariance[-1, -2] = (least + most) / 2
        lie = ClassStatistics(counts, np.zeros((4, size)), covariance[np.tril_indices(size)])
        least, most = (covariance[-1, -2], most) if is_admitted(lie, plan) else (least, covariance[-1, -2])
    covariance[-1, -2] = least
    return ClassStatistics(counts, np.zeros((4, size)), covariance[np.tril_indices(size)])


@pytest.mark.parametrize("precision", ["float16", "float32", "float64"])
def test_devices_that_together_claim_more_rounding_than_there_is_stop_no_head(precision):
    plan = SolvedHead(solver="ridge", precision=precision, ridge=1e-6)
    honest = [Featured(device.features / 1000, device.labels) for device in fleet(7, 9)]
    statistics = {f"pi-{number}": device.statistics(4, plan) for number, device in enumerate(honest)}
    for number in range(5):
        statistics[f"liar-{number}"] = lie_at_the_bound(number, plan)
    for most in (most_counted(statistics, plan, MAX_SAMPLES_PER_UPDATE), MAX_SAMPLES_PER_UPDATE):
        head = solve(pooled(statistics, "ridge", most), plan)
        assert np.isfinite(head.flat()).all()


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_equations_are_solved_as_lapack_solves_them(size, seed):
    generator = np.random.default_rng(seed)
    half = generator.standard_normal((size, size))
    matrix = half @ half.T + np.eye(size)
    right = generator.standard_normal((size, 3))
    np.testing.assert_allclose(factor(matrix), np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solve_equations(matrix, right), np.linalg.solve(matrix, right), rtol=1e-7, atol=1e-9)


def test_matrix_of_several_tiles_is_factored_as_one_of_a_single_one(monkeypatch):
    half = np.random.default_rng(4).standard_normal((70, 70))
    matrix = half @ half.T + np.eye(70)
    factors = []
    for block in (16, 64, 100):
        monkeypatch.setattr(cholesky, "BLOCK", block)
        factors.append(factor(matrix).tobytes())
    assert len(set(factors)) == 1
    np.testing.assert_allclose(factor(matrix), np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9)


def test_matrix_with_a_negative_direction_is_not_solved():
    with pytest.raises(ArithmeticError, match="pivot 1 of 2 is -3"):
        factor(np.array([[1.0, 2.0], [2.0, 1.0]]))
