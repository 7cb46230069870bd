"""What a strategy is: how a full buffer becomes one step of the server. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.block_weights import Weight
from broker_coordinator.aggregation.contribution import BufferedUpdate, Contribution
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate


class Partial(Protocol):
    """What a strategy makes of a part of a buffer. The partials of consecutive parts add up to that of the whole."""

    def __add__(self, later: Self, /) -> Self: ...


@dataclass(frozen=True, slots=True)
class Step:
    """`direction`, float64, as long as the flat weights, takes the place of a negative gradient in the server's
    optimiser; `rate` multiplies the server's learning rate; `remembered` is kept for the next version. The entries of
    the mask `stays` stay as they are, and so do the optimiser's moments of them: nobody has trained them.
    """

    direction: NDArray[np.float64]
    rate: float = 1.0
    remembered: Remembered = field(default_factory=dict)
    stays: NDArray[np.bool_] | None = None


RECENT_VERSIONS = 8


class Recall(Enum):
    """What a starting coordinator reads from the journal to restore `ServerState.remembered`."""

    NOTHING = auto()
    LAST_UPDATES = auto()
    """`remember`, given the last aggregated update of each device."""
    RECENT_UPDATES = auto()
    """`remember`, given the buffers of the last `RECENT_VERSIONS` versions, one after the other, oldest first."""
    ALL_UPDATES = auto()
    """`remember`, given all updates that were ever aggregated."""
    WEIGHTS = auto()
    """The weights of the last `max_staleness` versions, by number."""


P = TypeVar("P", bound=Partial)
Updates = tuple[BufferedUpdate, ...]
Weighted = list[tuple[Weight, SparseUpdate]]
Weigh = Callable[[ServerState, Sequence[BufferedUpdate], AggregationPlan], Weighted]


def nothing(_state: ServerState, _updates: Iterable[BufferedUpdate], _plan: AggregationPlan) -> Remembered:
    """What a strategy without memory remembers."""
    return {}


def in_order(_state: ServerState, updates: Iterable[BufferedUpdate], _plan: AggregationPlan) -> Updates:
    """The partial of a strategy that needs each update whole: the updates themselves, in journal order."""
    return tuple(updates)


def mean(_state: ServerState, total: Contribution, _plan: AggregationPlan) -> Step:
    """A step along the weighted mean."""
    return Step(total.mean_delta(), stays=total.nobodys())


@dataclass(frozen=True, slots=True)
class Strategy(Generic[P]):
    """`finish(state, partial(state, buffer))` is the step; updates come in journal order, `state` is that before it.

    `remember` gives `Step.remembered` alone, from the state and the updates: for restarts and rollbacks. `weighted` is
    what the direction is the weighted mean of, so that a rule can take the mean's place; None where it is no such mean.
    With `keeps_first` version 0 is in `state.moments`, and the direction is the way to the next one: no optimiser.
    """

    partial: Callable[[ServerState, Sequence[BufferedUpdate], AggregationPlan], P]
    finish: Callable[[ServerState, P, AggregationPlan], Step]
    remember: Callable[[ServerState, Iterable[BufferedUpdate], AggregationPlan], Remembered] = nothing
    recall: Recall = Recall.NOTHING
    weighted: Weigh | None = None
    keeps_first: bool = False
