"""How a full buffer becomes one step of the server: one short file a strategy. Pure."""

from typing import Any

from broker_coordinator.aggregation.strategies.aced import ACED
from broker_coordinator.aggregation.strategies.base_mean import BASE_MEAN
from broker_coordinator.aggregation.strategies.ca2fl import CA2FL
from broker_coordinator.aggregation.strategies.ef21 import EF21
from broker_coordinator.aggregation.strategies.fadas import FADAS
from broker_coordinator.aggregation.strategies.fedasync import FEDASYNC
from broker_coordinator.aggregation.strategies.fedavg import FEDAVG
from broker_coordinator.aggregation.strategies.fedbuff import FEDBUFF
from broker_coordinator.aggregation.strategies.posterior import POSTERIOR
from broker_coordinator.aggregation.strategies.strategy import RECENT_VERSIONS, Partial, Recall, Step, Strategy
from fleet_protocol.aggregation_plan import StrategyName

STRATEGIES: dict[StrategyName, Strategy[Any]] = {
    "fedbuff": FEDBUFF,
    "base_mean": BASE_MEAN,
    "fedasync": FEDASYNC,
    "fedavg": FEDAVG,
    "ca2fl": CA2FL,
    "aced": ACED,
    "fadas": FADAS,
    "ef21": EF21,
    "posterior": POSTERIOR,
}

__all__ = ["RECENT_VERSIONS", "STRATEGIES", "Partial", "Recall", "Step", "Strategy"]
