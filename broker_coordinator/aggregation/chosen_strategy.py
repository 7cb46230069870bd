"""The strategy that a task's plan chooses: its mean, or the rule that takes the mean's place. Pure.

direction = rule(what the strategy takes the mean of)

Where a rule judges by trusted devices, their last updates are remembered, as `aced` remembers everybody's, and are none
of what is compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.robust import RULES, Compared
from broker_coordinator.aggregation.robust.bucketing import in_buckets
from broker_coordinator.aggregation.robust.stack import Stack, Vector
from broker_coordinator.aggregation.robust.votes import one_vote_each
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.strategies import STRATEGIES, Recall, Step, Strategy
from broker_coordinator.aggregation.strategies.last_updates import remember_last
from broker_coordinator.aggregation.strategies.strategy import Updates, Weigh, in_order
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.robust_plan import COMPARES_A_BUFFER, NOT_ROBUST, TRUSTING_RULES, RobustPlan


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
    if plan.rule.rule in TRUSTING_RULES and strategy.recall is Recall.NOTHING:
        strategy = replace(strategy, remember=partial(_remember_trusted, plan.rule), recall=Recall.LAST_UPDATES)
    return Strategy(in_order, partial(_finish, plan.rule, strategy), strategy.remember, strategy.recall)


def _finish(
    robust: RobustPlan, strategy: Strategy[Any], state: ServerState, updates: Updates, plan: AggregationPlan
) -> Step:
    """By device, so that the order in which updates came means nothing; those of one stay in its own order, and are
    one vote. While there is nothing to compare, or nothing to judge it by, neither weights nor moments change.
    """
    remembered = strategy.remember(state, updates, plan)
    trusted = _trusted_direction(robust, state, remembered, plan)
    by_device = sorted(_judged(robust, updates), key=lambda update: update.device)
    others = {update.device: update for update in _judged(robust, state.remembered.values())}
    weighted = cast(Weigh, strategy.weighted)(replace(state, remembered=others), by_device, plan)
    whole = cast(Sequence[tuple[float, SparseUpdate]], weighted)  # a split takes no rule
    if plan.strategy in COMPARES_A_BUFFER:
        whole = one_vote_each(zip((update.device for update in by_device), whole, strict=True), state.weights.size)
    stack = in_buckets(Stack.of(whole, state.weights.size), robust.bucket_size, state.version)
    if not len(stack) or trusted is None:
        size = state.weights.size
        return Step(np.zeros(size), remembered=remembered, stays=np.ones(size, np.bool_))
    compared = Compared(stack, robust.hostile_of(len(stack)), _last_direction(state, plan), trusted)
    return Step(RULES[robust.rule](compared), remembered=remembered)


def _judged(robust: RobustPlan, updates: Iterable[BufferedUpdate]) -> list[BufferedUpdate]:
    """Those of devices that are not trusted."""
    return [update for update in updates if update.device not in robust.trusted_devices]


def _remember_trusted(
    robust: RobustPlan, state: ServerState, updates: Iterable[BufferedUpdate], plan: AggregationPlan
) -> Remembered:
    """The last update of each trusted device."""
    return remember_last(state, (update for update in updates if update.device in robust.trusted_devices), plan)


def _trusted_direction(
    robust: RobustPlan, state: ServerState, remembered: Remembered, plan: AggregationPlan
) -> Vector | None:
    """The mean of what trusted devices sent last, each with the same say however many samples it claims, if that is not
    too stale: None where a rule needs it and all is; zeros where no device is trusted.
    """
    last = [remembered[device] for device in sorted(robust.trusted_devices) if device in remembered]
    fresh = [update for update in last if state.version - update.base_version <= plan.max_staleness]
    if robust.trusted_devices and not fresh:
        return None
    return Stack.of([(1.0, update.delta) for update in fresh], state.weights.size).mean()


def _last_direction(state: ServerState, plan: AggregationPlan) -> Vector:
    """The mean of the last directions that the server's velocity is the sum of; zeros where no velocity is kept."""
    if plan.server_optimiser != "momentum":
        return np.zeros(state.weights.size)
    velocity: Vector = state.moments[0].astype(np.float64)
    return velocity * (1 - plan.server_momentum)
