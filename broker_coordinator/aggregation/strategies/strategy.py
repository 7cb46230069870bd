"""What a strategy is: how a full buffer becomes one step of the server. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from fleet_protocol.aggregation_plan import AggregationPlan


@dataclass(frozen=True, slots=True)
class Step:
    """`direction`, float64, as long as the flat weights, takes the place of a negative gradient in the server's
    optimiser; `rate` multiplies the server's learning rate.
    """

    direction: NDArray[np.float64]
    rate: float = 1.0


class Recall(Enum):
    """What of the journal a coordinator that starts makes `ServerState.remembered` from."""

    NOTHING = auto()
    LAST_UPDATES = auto()
    """`remember`, given the last aggregated update of each device."""
    ALL_UPDATES = auto()
    """`remember`, given all updates that were ever aggregated."""
    WEIGHTS = auto()
    """The weights of the last `max_staleness` versions, by number."""


def nothing(_state: ServerState, _updates: Iterable[BufferedUpdate], _plan: AggregationPlan) -> Remembered:
    """What a strategy without memory remembers."""
    return {}


@dataclass(frozen=True, slots=True)
class Strategy:
    """Both functions take the state before the step and the buffer, in journal order."""

    step: Callable[[ServerState, Sequence[BufferedUpdate], AggregationPlan], Step]
    remember: Callable[[ServerState, Iterable[BufferedUpdate], AggregationPlan], Remembered] = nothing
    recall: Recall = Recall.NOTHING
