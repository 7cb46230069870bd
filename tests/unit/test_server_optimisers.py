"""Server optimisers against the formulas of Reddi et al. 2021, written out once more, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from broker_coordinator.aggregation.server_optimisers import OPTIMISERS
from broker_coordinator.aggregation.server_step import initial_state, next_state
from fleet_protocol.aggregation_plan import AggregationPlan
from tests.support.updates import update_of

B1, B2, TAU = 0.9, 0.97, 0.01


def test_momentum_step_by_hand() -> None:
    plan = AggregationPlan(buffer_size=1, server_momentum=0.5, server_learning_rate=2.0)
    state = next_state(initial_state(np.zeros(2, np.float32), plan), [update_of(1.0)], plan)
    assert (state.moments.tolist(), state.weights.tolist()) == ([[1.0, 0.0]], [2.0, 0.0])
    state = next_state(state, [update_of(1.0)], plan)
    assert (state.moments.tolist(), state.weights.tolist()) == ([[1.5, 0.0]], [5.0, 0.0])
    assert state.weights.dtype == state.moments.dtype == np.float32


def test_plain_step_is_momentum_without_it() -> None:
    states = []
    for optimiser in ("sgd", "momentum"):
        plan = AggregationPlan(buffer_size=1, server_optimiser=optimiser, server_learning_rate=0.3)
        state = initial_state(np.ones(2, np.float32), plan)
        for value in (1.0, -3.0):
            state = next_state(state, [update_of(value)], plan)
        states.append(state)
    assert states[0].weights.tolist() == states[1].weights.tolist()
    assert states[0].moments.shape == (0, 2)


def movements(optimiser: str, directions: np.ndarray) -> np.ndarray:
    """Of one weight, in Python's own arithmetic."""
    m, v, largest, made = 0.0, TAU**2, TAU**2, []
    for d in directions.tolist():
        m = B1 * m + (1 - B1) * d
        if optimiser == "adagrad":
            v = v + d * d
        elif optimiser == "yogi":
            v = v - (1 - B2) * d * d * (1 if v > d * d else -1 if v < d * d else 0)
        else:
            v = B2 * v + (1 - B2) * d * d
        largest = max(largest, v)
        made.append(m / ((largest if optimiser == "amsgrad" else v) ** 0.5 + TAU))
    return np.array(made)


@pytest.mark.parametrize("optimiser", ["adagrad", "adam", "yogi", "amsgrad"])
def test_adaptive_movements_are_the_formulas(optimiser) -> None:
    plan = AggregationPlan(
        buffer_size=1,
        server_optimiser=optimiser,
        server_momentum=B1,
        server_second_momentum=B2,
        server_adaptivity=TAU,
    )
    directions = np.random.default_rng(1).normal(0, np.geomspace(10, 1e-3, 40))
    moments, made = OPTIMISERS[optimiser].first_moments(1, plan), []
    for each in directions:
        moments, movement = OPTIMISERS[optimiser].move(moments, np.array([each]), plan)
        made.append(movement[0])
    np.testing.assert_allclose(made, movements(optimiser, directions), rtol=1e-5)


def test_grafted_step_is_as_long_as_the_plain_one_and_shorter_where_directions_were_long() -> None:
    plan = AggregationPlan(buffer_size=1)
    grafted = OPTIMISERS["grafted"]
    moments, _ = grafted.move(grafted.first_moments(2, plan), np.array([30.0, 0.4]), plan)
    moments, movement = grafted.move(moments, np.array([3.0, 4.0]), plan)
    second = 0.99 * (0.01 * np.array([30.0, 0.4]) ** 2) + 0.01 * np.array([3.0, 4.0]) ** 2
    divisors = np.sqrt(second) + 1e-3 * np.sqrt(second.mean())
    adapted = np.array([3.0, 4.0]) / divisors
    np.testing.assert_allclose(movement, 5 * adapted / np.linalg.norm(adapted), rtol=1e-6)
    np.testing.assert_allclose(moments, [second], rtol=1e-6)


@given(
    arrays(np.float64, (4, 6), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(-40, 15),
)
def test_grafted_step_never_goes_further_than_the_plain_one_and_keeps_each_sign(directions, exponent) -> None:
    plan, grafted = AggregationPlan(buffer_size=1), OPTIMISERS["grafted"]
    moments = grafted.first_moments(6, plan)
    for direction in directions * 10.0**exponent:
        moments, movement = grafted.move(moments, direction, plan)
        assert np.isfinite(movement).all()
        np.testing.assert_allclose(np.linalg.norm(movement), np.linalg.norm(direction), rtol=1e-9)
        assert (movement * direction >= 0).all()


def test_no_direction_moves_nothing() -> None:
    plan, grafted = AggregationPlan(buffer_size=1), OPTIMISERS["grafted"]
    moments, movement = grafted.move(grafted.first_moments(3, plan), np.zeros(3), plan)
    assert movement.tolist() == [0.0, 0.0, 0.0]
    assert not moments.any()
