"""The strategy that a task's plan chooses: its mean, or the rule that takes the mean's place. Pure.

direction = rule(what the strategy takes the mean of)
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, cast

import numpy as np

from broker_coordinator.aggregation.robust import RULES, Compared
from broker_coordinator.aggregation.robust.bucketing import in_buckets
from broker_coordinator.aggregation.robust.stack import Stack, Vector
from broker_coordinator.aggregation.robust.votes import one_vote_each
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import STRATEGIES, Step, Strategy
from broker_coordinator.aggregation.strategies.strategy import Updates, Weigh, in_order
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.robust_plan import COMPARES_A_BUFFER, NOT_ROBUST, RobustPlan


@cache
def strategy_of(plan: AggregationPlan) -> Strategy[Any]:
    """That of a plan.

    Raises:
        ConfigurationError: it has a rule, which its strategy can't take; a bundle with such a plan is refused.
    """
    strategy = STRATEGIES[plan.strategy]
    if plan.rule is None:
        return strategy
    if strategy.weighted is None:
        raise ConfigurationError(
            f"[aggregation.robust] does not go with aggregation.strategy {plan.strategy!r}: {NOT_ROBUST[plan.strategy]}"
        )
    return Strategy(in_order, partial(_finish, plan.rule, strategy), strategy.remember, strategy.recall)


def _finish(
    robust: RobustPlan, strategy: Strategy[Any], state: ServerState, updates: Updates, plan: AggregationPlan
) -> Step:
    """By device, so that the order in which updates came means nothing; those of one stay in its own order, and are
    one vote.
    """
    by_device = sorted(updates, key=lambda update: update.device)
    weighted = cast(Weigh, strategy.weighted)(state, by_device, plan)
    whole = cast(Sequence[tuple[float, SparseUpdate]], weighted)  # a split takes no rule
    if plan.strategy in COMPARES_A_BUFFER:
        whole = one_vote_each(zip((update.device for update in by_device), whole, strict=True), state.weights.size)
    stack = in_buckets(Stack.of(whole, state.weights.size), robust.bucket_size, state.version)
    direction = np.zeros(state.weights.size)
    if len(stack):
        direction = RULES[robust.rule](Compared(stack, robust.hostile_of(len(stack)), _last_direction(state, plan)))
    return Step(direction, remembered=strategy.remember(state, updates, plan))


def _last_direction(state: ServerState, plan: AggregationPlan) -> Vector:
    """The mean of the last directions that the server's velocity is the sum of; zeros where no velocity is kept."""
    if plan.server_optimiser != "momentum":
        return np.zeros(state.weights.size)
    velocity: Vector = state.moments[0].astype(np.float64)
    return velocity * (1 - plan.server_momentum)
