"""FedBuff, in which all updates that began with one version move the model by their mean, and no further.

    buffer of weight W, the updates in it that began with version b:     S_b += sum(w_i * delta_i),  V_b += sum(w_i)
    direction = sum over b of (S_b / D_b  -  S_b / D_b before this buffer),     D_b = max(V_b, W of its first buffer)

Of FedBuff's buffers, each moves the model by a whole mean: where many devices begin with one version, the model goes
that way once for each buffer that their updates fill. Here later ones correct the mean of the earlier ones. Where no
more updates begin with a version than a buffer takes, this is FedBuff. docs/decisions/one-mean-of-a-base.md
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.block_weights import Weight, divided, largest, nobodys, where_any
from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import (
    RECENT_VERSIONS,
    Recall,
    Step,
    Strategy,
    Updates,
    in_order,
)
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec.sparse import FloatVector

MOST_KEPT = 1 << 24
"""Values of all sums that are kept, 64 MiB: of a model of 16 million parameters, those that began with one version."""


@dataclass(frozen=True, slots=True)
class Began:
    """What began with one version, of all buffers so far: `total` is the weighted sum of the deltas, float32, as long
    as the flat weights, `weight` their weight, and `divisor` what the sum was divided by.
    """

    total: FloatVector
    weight: Weight = 0.0
    divisor: Weight = 0.0

    def with_updates(self, updates: Iterable[BufferedUpdate], of_buffer: Weight, plan: AggregationPlan) -> "Began":
        """Once some of a buffer, of which all updates weigh `of_buffer`, are added."""
        added = contribution_of([(update.weight(plan), update.delta) for update in updates], self.total.size)
        weight = self.weight + added.weight
        divisor = largest(where_any(self.divisor, of_buffer), weight)
        return Began((self.total + added.total_delta).astype(np.float32), weight, divisor)

    def moved(self) -> NDArray[np.float64]:
        """How far they have moved the model, float64."""
        return divided(self.total.astype(np.float64), self.divisor)


def finish(state: ServerState, buffer: Updates, plan: AggregationPlan) -> Step:
    """See above; a weight is that of FedBuff."""
    of_buffer = sum((update.weight(plan) for update in buffer), 0.0)
    together: dict[int, list[BufferedUpdate]] = defaultdict(list)
    for update in buffer:
        together[update.base_version].append(update)
    began: dict[int, Began] = dict(state.remembered)
    direction = np.zeros(state.weights.size)
    for base, updates in sorted(together.items()):
        before = began.get(base, Began(np.zeros(state.weights.size, np.float32)))
        began[base] = before.with_updates(updates, of_buffer, plan)
        direction += began[base].moved() - before.moved()
    oldest = state.version + 1 - _versions_kept(state.weights.size)
    recent = {base: each for base, each in sorted(began.items()) if base >= oldest}
    return Step(direction, remembered=recent, stays=nobodys(of_buffer))


def remember(state: ServerState, buffer: Iterable[BufferedUpdate], plan: AggregationPlan) -> Mapping[int, Began]:
    """What `finish` keeps of one buffer; of none, nothing: whatever moved the model then, these updates did not."""
    updates = tuple(buffer)
    return finish(state, updates, plan).remembered if updates else {}


def _versions_kept(parameters: int) -> int:
    return min(RECENT_VERSIONS, max(1, MOST_KEPT // parameters))


BASE_MEAN = Strategy(in_order, finish, remember, Recall.RECENT_UPDATES)
