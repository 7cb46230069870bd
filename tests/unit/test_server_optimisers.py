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


def test_grafted_step_is_the_formula_and_as_long_as_with_momentum_alone() -> None:
    plan = AggregationPlan(buffer_size=1)
    assert (plan.optimiser, plan.momentum) == ("grafted", 0.5)
    grafted = OPTIMISERS["grafted"]
    moments, _ = grafted.move(grafted.first_moments(2, plan), np.array([30.0, 0.4]), plan)
    moments, movement = grafted.move(moments, np.array([3.0, 4.0]), plan)
    first = 0.5 * np.array([30.0, 0.4]) + np.array([3.0, 4.0])
    second = 0.99 * (0.01 * np.array([30.0, 0.4]) ** 2) + 0.01 * np.array([3.0, 4.0]) ** 2
    adapted = first / (np.sqrt(second) + 1e-3 * np.sqrt(second.mean()))
    np.testing.assert_allclose(movement, np.linalg.norm(first) * adapted / np.linalg.norm(adapted), rtol=1e-6)
    np.testing.assert_allclose(moments, [first, second], rtol=1e-6)


@given(
    arrays(np.float64, (4, 6), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(-40, 15),
)
def test_grafted_step_goes_as_far_as_momentum_alone_and_keeps_each_sign(directions, exponent) -> None:
    plan, grafted, plain = AggregationPlan(buffer_size=1), OPTIMISERS["grafted"], OPTIMISERS["momentum"]
    moments, alone = grafted.first_moments(6, plan), plain.first_moments(6, plan)
    for direction in directions * 10.0**exponent:
        moments, movement = grafted.move(moments, direction, plan)
        alone, unadapted = plain.move(alone, direction, plan)
        assert np.isfinite(movement).all()
        np.testing.assert_allclose(np.linalg.norm(movement), np.linalg.norm(unadapted), rtol=1e-6)
        assert (movement * unadapted >= 0).all()


def test_no_direction_moves_nothing() -> None:
    plan, grafted = AggregationPlan(buffer_size=1), OPTIMISERS["grafted"]
    moments, movement = grafted.move(grafted.first_moments(3, plan), np.zeros(3), plan)
    assert movement.tolist() == [0.0, 0.0, 0.0]
    assert not moments.any()


@pytest.mark.parametrize(
    ("settings", "optimiser"),
    [
        ({}, ("grafted", 0.5)),
        ({"server_momentum": 0.3}, ("momentum", 0.3)),
        ({"server_momentum": 0.0}, ("momentum", 0.0)),
        ({"strategy": "ca2fl"}, ("momentum", 0.0)),
        ({"server_optimiser": "adam"}, ("adam", 0.0)),
        ({"strategy": "ca2fl", "server_optimiser": "grafted"}, ("grafted", 0.5)),
        ({"server_optimiser": "grafted", "server_momentum": 0.0}, ("grafted", 0.0)),
    ],
)
def test_steps_are_grafted_for_fedbuff_where_optimiser_and_momentum_are_left_out(settings, optimiser) -> None:
    plan = AggregationPlan(**settings)
    assert (plan.optimiser, plan.momentum) == optimiser
