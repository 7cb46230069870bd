"""Every rule is its paper's equation, on dense arrays; and holds where a fifth of the updates is hostile."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from broker_coordinator.aggregation.chosen_strategy import strategy_of
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.robust import RULES, Compared
from broker_coordinator.aggregation.robust.bucketing import in_buckets
from broker_coordinator.aggregation.robust.stack import Change, Stack
from broker_coordinator.aggregation.robust.votes import one_vote_each
from broker_coordinator.aggregation.server_step import initial_state, next_state
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.robust_plan import TRUSTING_RULES, RobustPlan

SIZE = 30


def drawn(seed: int, count: int, density: float) -> np.ndarray:
    """Rows of which so large a share of the entries is not 0."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(0.3, 1, (count, SIZE)).astype(np.float32)
    return np.where(generator.random((count, SIZE)) < density, rows, 0).astype(np.float64)


def stack_of(rows: np.ndarray) -> Stack:
    return Stack.of([(1.0, sparse(row)) for row in rows], SIZE)


def sparse(row: np.ndarray) -> SparseUpdate:
    places = np.flatnonzero(row)
    return SparseUpdate(places, row[places].astype(np.float32))


def found(
    rule: str,
    rows: np.ndarray,
    hostile: int = 0,
    last: np.ndarray | None = None,
    trusted: np.ndarray | None = None,
) -> np.ndarray:
    """By the last row, where a rule trusts one."""
    trusted = rows[-1] if trusted is None else trusted
    return RULES[rule](Compared(stack_of(rows), hostile, np.zeros(SIZE) if last is None else last, trusted))


def by_entry(rows: np.ndarray, estimate) -> np.ndarray:
    result = np.zeros(SIZE)
    for place, column in enumerate(rows.T):
        sent = np.sort(column[column != 0])
        if sent.size:
            result[place] = estimate(sent) * sent.size / len(rows)
    return result


def krum_scores(rows: np.ndarray, hostile: int) -> list[float]:
    scores = []
    for one in range(len(rows)):
        far = sorted(float(((rows[one] - rows[other]) ** 2).sum()) for other in range(len(rows)) if other != one)
        scores.append(sum(far[: max(1, len(rows) - hostile - 2)]))
    return scores


SHAPES = [(1, 1.0), (2, 0.4), (3, 1.0), (5, 0.3), (8, 0.5), (11, 1.0), (23, 0.2)]


@pytest.mark.parametrize(("count", "density"), SHAPES)
@pytest.mark.parametrize("seed", range(4))
class TestEquations:
    def test_median(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        np.testing.assert_allclose(found("median", rows), by_entry(rows, np.median), atol=1e-12)

    def test_trimmed_mean(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        hostile = count // 4

        def trimmed(sent: np.ndarray) -> float:
            cut = min(math.ceil(sent.size * hostile / count), (sent.size - 1) // 2)
            return sent[cut : sent.size - cut].mean()

        np.testing.assert_allclose(found("trimmed_mean", rows, hostile), by_entry(rows, trimmed), atol=1e-12)

    def test_geometric_median(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        centre = np.zeros(SIZE)
        least = 1e-6 * np.linalg.norm(rows, axis=1).max()
        for _ in range(32):
            weights = 1 / np.maximum(np.linalg.norm(rows - centre, axis=1), least)
            centre = weights @ rows / weights.sum()
        np.testing.assert_allclose(found("geometric_median", rows), centre, atol=1e-7)

    def test_krum(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        hostile = max(0, min(count // 5, (count - 3) // 2))
        best = rows[int(np.argmin(krum_scores(rows, hostile)))]
        np.testing.assert_allclose(found("krum", rows, count // 5), best, atol=1e-12)

    def test_multi_krum(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        hostile = max(0, min(count // 5, (count - 3) // 2))
        order = np.argsort(krum_scores(rows, hostile), kind="stable")[: count - hostile]
        np.testing.assert_allclose(found("multi_krum", rows, count // 5), rows[order].mean(axis=0), atol=1e-12)

    def test_bulyan(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        hostile = max(0, min(count // 5, (count - 3) // 4))
        left, chosen = list(range(count)), []
        while len(chosen) < count - 2 * hostile:
            scores = krum_scores(rows[left], hostile) if len(left) > 1 else [0.0]
            chosen.append(left.pop(int(np.argmin(scores))))
        theta = len(chosen)

        def middle(sent: np.ndarray) -> float:
            near = sorted(sent, key=lambda value: abs(value - np.median(sent)))
            return float(np.mean(near[: max(1, sent.size * (theta - 2 * hostile) // theta)]))

        np.testing.assert_allclose(found("bulyan", rows, count // 5), by_entry(rows[chosen], middle), atol=1e-12)

    def test_centred_clipping(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        last = np.random.default_rng(seed).normal(size=SIZE)
        centre = last.copy()
        for _ in range(3):
            far = np.linalg.norm(rows - centre, axis=1)
            radius = np.sort(far)[(count - 1) // 2]
            centre = centre + np.mean(
                [(row - centre) * (radius / d if d > radius else 1) for row, d in zip(rows, far, strict=True)], 0
            )
        np.testing.assert_allclose(found("centred_clipping", rows, last=last), centre, atol=1e-9)

    def test_spectral(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        rows[: count // 5] = np.linspace(-9, 9, SIZE, dtype=np.float32)  # so that one direction stands out
        off = rows - rows.mean(axis=0)
        scores = (off @ np.linalg.svd(off)[2][0]) ** 2
        kept = np.argsort(scores, kind="stable")[: count - count // 5]
        np.testing.assert_allclose(found("spectral", rows, count // 5), rows[kept].mean(axis=0), atol=1e-9)

    def test_zeno(self, seed, count, density) -> None:
        """The score as published, with gamma = 0.5, rho = 0.1 and epsilon = 0.2 |v|^2."""
        rows = drawn(seed, count, density)
        trusted = np.random.default_rng(seed).normal(size=SIZE)
        gradient, gamma, rho = -trusted, 0.5, 0.1
        epsilon = 0.2 * gradient @ gradient
        counted = []
        for row in rows:
            rescaled = -row * np.linalg.norm(gradient) / np.linalg.norm(row)
            if gamma * gradient @ rescaled - rho * rescaled @ rescaled + gamma * epsilon > 0:
                counted.append(-rescaled)
        expected = np.mean(counted, axis=0) if counted else np.zeros(SIZE)
        np.testing.assert_allclose(found("zeno", rows, trusted=trusted), expected, atol=1e-9)

    def test_fltrust(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        trusted = np.random.default_rng(seed).normal(size=SIZE)
        norms = np.linalg.norm(rows, axis=1)
        trust = np.maximum(rows @ trusted / norms / np.linalg.norm(trusted), 0)
        rescaled = rows / norms[:, None] * np.linalg.norm(trusted)
        expected = trust @ rescaled / trust.sum() if trust.any() else np.zeros(SIZE)
        np.testing.assert_allclose(found("fltrust", rows, trusted=trusted), expected, atol=1e-9)

    def test_bucketing(self, seed, count, density) -> None:
        rows = drawn(seed, count, density)
        for size in (1, 2, 5):
            buckets = in_buckets(stack_of(rows), size, version=seed)
            assert len(buckets) == math.ceil(count / size)
            assert size * len(buckets) > count or np.allclose(buckets.mean(), rows.mean(axis=0), atol=1e-12)


def attacked(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sixteen honest rows around a direction, and four that are turned round together, four times as long."""
    generator = np.random.default_rng(seed)
    wanted = generator.normal(size=SIZE)
    honest = wanted + generator.normal(0, 0.7, (16, SIZE))
    return wanted, np.concatenate([np.repeat(-4.0 * wanted[None], 4, axis=0), honest])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", sorted(RULES))
def test_fifth_that_is_turned_round_does_not_turn_the_direction(rule, seed) -> None:
    """Where the mean is turned round."""
    wanted, rows = attacked(seed)
    assert rows.mean(axis=0) @ wanted < 0.1 * wanted @ wanted
    direction = found(rule, rows, hostile=4)
    assert direction @ wanted > 0.5 * np.linalg.norm(direction) * np.linalg.norm(wanted)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"krum"}))
def test_without_an_attack_the_direction_is_near_that_of_the_mean(rule, seed) -> None:
    rows = attacked(seed)[1][4:]
    mean, direction = rows.mean(axis=0), found(rule, rows, hostile=3)
    assert direction @ mean > 0.9 * np.linalg.norm(direction) * np.linalg.norm(mean)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_updates_that_are_all_zero_or_all_alike_move_nothing_or_alike(rule) -> None:
    assert not found(rule, np.zeros((6, SIZE)), hostile=1).any()
    row = np.linspace(1, 2, SIZE)
    np.testing.assert_allclose(found(rule, np.repeat(row[None], 6, axis=0), hostile=1), row, rtol=1e-6)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_absurd_but_finite_updates_leave_finite_weights(rule) -> None:
    """As long as any that is admitted."""
    rows = drawn(1, 10, 0.5)
    rows[:2] = 1e15
    rows[2] = 1e-30
    assert np.isfinite(found(rule, rows, hostile=2)).all()


def test_wide_models_are_compared_some_columns_at_a_time(monkeypatch) -> None:
    rows = drawn(3, 9, 0.4)
    whole = {rule: found(rule, rows, hostile=2) for rule in RULES}
    monkeypatch.setattr("broker_coordinator.aggregation.robust.stack.MOST_VALUES", 40)
    for rule, direction in whole.items():
        assert found(rule, rows, hostile=2).tobytes() == direction.tobytes()


def test_staleness_and_samples_weigh_what_a_rule_compares() -> None:
    """x_i = w_i / mean(w) * delta_i: the median of 1/2, 2 and 1/2 times the deltas, for weights of 1, 4 and 1."""
    plan = AggregationPlan(buffer_size=5, staleness_exponent=1.0, robust=RobustPlan("median"))
    updates = [
        BufferedUpdate(name, SparseUpdate(np.arange(1), np.array([value], np.float32)), samples, 20 - late, late)
        for name, value, samples, late in (("a", 10.0, 2, 1), ("b", 3.0, 4, 0), ("c", 1.0, 1, 0))
    ]
    state = initial_state(np.zeros(1, np.float32), plan)
    assert strategy_of(plan).finish(state, tuple(updates), plan).direction.tolist() == [5.0]


def test_centred_clipping_goes_on_from_the_last_direction() -> None:
    """Which the server's velocity holds, however large its momentum is."""
    plan = AggregationPlan(strategy="aced", server_momentum=0.75, robust=RobustPlan("centred_clipping"))
    rows = drawn(4, 7, 0.5)
    last = 3 * rows.mean(axis=0)
    updates = [BufferedUpdate(f"d{number}", sparse(row), 3, 0, 0) for number, row in enumerate(rows)]
    first = initial_state(np.zeros(SIZE, np.float32), plan)
    state = replace(first, moments=(4 * last)[None].astype(np.float32))
    expected = found("centred_clipping", rows, last=state.moments[0].astype(np.float64) / 4)
    assert not np.allclose(expected, found("centred_clipping", rows), atol=1e-3)
    direction = strategy_of(plan).finish(state, tuple(updates), plan).direction
    np.testing.assert_allclose(direction, expected, atol=1e-12)


def test_nothing_that_weighs_anything_moves_nothing() -> None:
    plan = AggregationPlan(strategy="aced", cached_staleness=2, robust=RobustPlan("krum"))
    old = BufferedUpdate("a", SparseUpdate(np.arange(1), np.ones(1, np.float32)), 3, 0, 9)
    state = initial_state(np.zeros(1, np.float32), plan)
    assert next_state(replace(state, version=9), [old], plan).weights.tolist() == [0.0]


def test_large_fleet_is_compared_in_part_drawn_anew_for_each_version() -> None:
    rows = drawn(2, 300, 0.3)
    first, again, next_one = (in_buckets(stack_of(rows), 1, version) for version in (7, 7, 8))
    assert len(first) == len(next_one) == 256
    assert first.mean().tobytes() == again.mean().tobytes() != next_one.mean().tobytes()
    assert len(in_buckets(stack_of(rows), 2, 7)) == 150


def whole(*rows: list[float]) -> Stack:
    """Updates that sent every entry, zeros too."""
    return Stack.of([(1.0, SparseUpdate(np.arange(len(row)), np.array(row, np.float32))) for row in rows], len(rows[0]))


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "bulyan"])
def test_zero_that_was_sent_counts_and_an_entry_that_was_not_sent_does_not(rule) -> None:
    """Six of seven devices want the first entry where it is; the second is sent by one of seven."""
    stack = whole(*[[0.0, 0.0]] * 6, [70.0, 0.0])
    assert RULES[rule](Compared(stack, 1, np.zeros(2), np.zeros(2))).tolist() == [0.0, 0.0]
    alone = Stack([Change(np.array([0]), np.zeros(1))] * 6 + [Change(np.array([1]), np.array([70.0]))], 2)
    assert RULES[rule](Compared(alone, 0, np.zeros(2), np.zeros(2))).tolist() == [0.0, 10.0]


def test_zero_that_was_sent_is_in_its_bucket_too() -> None:
    """The mean of 3 and -3 was sent, and is 0."""
    buckets = in_buckets(whole([3.0, 1.0], [-3.0, 1.0]), 2, version=0)
    assert [change.indices.tolist() for change in buckets.changes] == [[0, 1]]
    assert buckets.changes[0].values.tolist() == [0.0, 1.0]


def test_vote_of_a_device_is_the_mean_of_its_updates() -> None:
    """(1 * 6 + 3 * 2) / 4 = 3 of entry 0; entry 2, which the second does not hold, is (1 * 8 + 3 * 0) / 4 = 2."""
    once = (5.0, sparse(np.array([1.0, 0.0, 0.0])))
    first = (1.0, SparseUpdate(np.array([0, 2]), np.array([6, 8], np.float32)))
    second = (3.0, SparseUpdate(np.array([0, 1]), np.array([2, 0], np.float32)))
    votes = one_vote_each([("a", first), ("a", second), ("b", once)], 3)
    assert votes[1] is once
    assert votes[0][0] == 2.0
    assert (votes[0][1].indices.tolist(), votes[0][1].values.tolist()) == ([0, 1, 2], [3.0, 0.0, 2.0])


@pytest.mark.parametrize("strategy", ["fedbuff", "fedavg"])
@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"centred_clipping"}))
def test_device_that_fills_most_of_a_buffer_is_one_vote(strategy, rule) -> None:
    """Thirteen of twenty updates are of one device, which turns the direction round: seven honest devices decide."""
    plan = AggregationPlan(
        buffer_size=20,
        strategy=strategy,
        max_staleness=0 if strategy == "fedavg" else 6,
        robust=RobustPlan(
            rule, 0.12 if rule == "bulyan" else 0.2, trusted_devices=("d0",) if rule in TRUSTING_RULES else ()
        ),
    )
    generator = np.random.default_rng(5)
    honest = [1 + generator.normal(0, 0.1, SIZE) for _ in range(7)]
    updates = [BufferedUpdate(f"d{number}", sparse(row), 3, 0, 0) for number, row in enumerate(honest)]
    updates += [BufferedUpdate("evil", sparse(np.full(SIZE, -4.0)), 3, 0, 0)] * 13
    state = initial_state(np.zeros(SIZE, np.float32), plan)
    direction = strategy_of(plan).finish(state, tuple(updates), plan).direction
    assert direction.mean() > 0.3


@pytest.mark.parametrize("rule", TRUSTING_RULES)
def test_most_of_a_fleet_may_be_hostile_where_another_device_is_trusted(rule) -> None:
    """Three of twenty are honest."""
    wanted, rows = attacked(1)
    rows = np.concatenate([np.repeat(rows[:1], 17, axis=0), rows[4:7]])
    direction = found(rule, rows, trusted=wanted)
    assert direction @ wanted > 0.5 * np.linalg.norm(direction) * np.linalg.norm(wanted) > 0


def trusting(rule: str, strategy: str) -> AggregationPlan:
    robust = RobustPlan(rule, trusted_devices=("mine", "other"))
    return AggregationPlan(buffer_size=2, strategy=strategy, max_staleness=3, robust=robust)


def sent(device: str, *values: float, base: int = 0, samples: int = 3) -> BufferedUpdate:
    return BufferedUpdate(device, SparseUpdate(np.arange(len(values)), np.array(values, np.float32)), samples, base, 0)


@pytest.mark.parametrize("strategy", ["aced", "fedbuff"])
@pytest.mark.parametrize("rule", TRUSTING_RULES)
class TestTrustedDevices:
    def test_judge_later_versions_and_move_none(self, rule, strategy) -> None:
        """The honest update is brought to the length of the trusted one, which has as much as it has of the way."""
        plan = trusting(rule, strategy)
        state = next_state(initial_state(np.zeros(2, np.float32), plan), [sent("mine", 2.0, 0.0)], plan)
        assert state.weights.tolist() == [0.0, 0.0]
        buffer = [sent("evil", -9.0, 0.0, base=1), sent("good", 30.0, 40.0, base=1)]
        np.testing.assert_allclose(next_state(state, buffer, plan).weights, [1.2, 1.6], rtol=1e-6)

    def test_have_the_same_say_whatever_they_claim(self, rule, strategy) -> None:
        plan = trusting(rule, strategy)
        state = initial_state(np.zeros(2, np.float32), plan)
        buffer = [sent("mine", 1.0, 0.0, samples=9), sent("other", 3.0, 0.0), sent("good", 1.0, 0.0)]
        np.testing.assert_allclose(next_state(state, buffer, plan).weights, [2.0, 0.0], rtol=1e-6)

    @pytest.mark.parametrize(("version", "moved"), [(3, 2.0), (4, 0.0)])
    def test_judge_no_more_once_they_are_too_stale(self, rule, strategy, version, moved) -> None:
        plan = trusting(rule, strategy)
        state = next_state(initial_state(np.zeros(1, np.float32), plan), [sent("mine", 2.0)], plan)
        state = replace(state, version=version)
        assert next_state(state, [sent("good", 5.0, base=version)], plan).weights.tolist() == [moved]

    def test_without_any_the_model_stays_as_it_is(self, rule, strategy) -> None:
        plan = trusting(rule, strategy)
        state = initial_state(np.zeros(1, np.float32), plan)
        assert next_state(state, [sent("good", 5.0)], plan).weights.tolist() == [0.0]

    def test_silent_leave_the_velocity_of_the_server_as_it_is_too(self, rule, strategy) -> None:
        plan = msgspec.structs.replace(trusting(rule, strategy), server_momentum=0.5)
        state = initial_state(np.zeros(1, np.float32), plan)
        state = next_state(state, [sent("mine", 2.0), sent("good", 5.0)], plan)
        assert state.weights.tolist() == [2.0]
        stale = replace(state, version=state.version + plan.max_staleness)
        frozen = next_state(stale, [sent("good", 5.0, base=stale.version)], plan)
        assert frozen.weights.tolist() == [2.0]
        assert frozen.moments.tolist() == state.moments.tolist()
        again = next_state(frozen, [sent("mine", 2.0, base=frozen.version)], plan)
        assert again.weights.tolist() == ([5.0] if strategy == "aced" else [2.0]), "aced knows what was sent meanwhile"
