"""What strategies with a cache remember: the last aggregated update of each device."""

from collections.abc import Iterable, Mapping

from broker_coordinator.aggregation.bounds import Bounds
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from fleet_protocol.aggregation_plan import AggregationPlan

LastUpdates = Mapping[str, BufferedUpdate]


def remember_last(state: ServerState, buffer: Iterable[BufferedUpdate], _: AggregationPlan) -> LastUpdates:
    """By device, sorted by name, so that sums over them are the same after a restart."""
    last = dict(state.remembered) | {update.device: update for update in buffer}
    return dict(sorted(last.items()))


def bounds_of(last: LastUpdates) -> Bounds:
    """What one of these devices may weigh among all of them."""
    devices = [update for update in last.values() if not update.helper]
    return Bounds.among([update.samples for update in devices], [update.delta.norm() for update in devices])
