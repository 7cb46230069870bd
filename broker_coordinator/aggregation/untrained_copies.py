"""A copy that no device has trained yet is copy 0, whatever becomes of that. Pure.

    copy c = copy 0, after each version in front of which it was copy 0 and in which it has not moved

So a cluster begins with what devices without one have learned by then; from its first update on it goes its own way.
Nothing says beside the weights which copies are trained: a rollback and a replay find it out as the first time.
"""

from dataclasses import replace
from itertools import accumulate

import numpy as np

from broker_coordinator.aggregation.server_state import ServerState
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.version_layout import VersionLayout


def following(made: ServerState, before: ServerState, layout: VersionLayout) -> ServerState:
    """The version `made` after `before`, with copy 0, and the optimiser's moments of it, in every untrained copy."""
    places = _places(layout)
    weights, moments = made.weights.copy(), made.moments.copy()
    for number, (block, copy) in enumerate(layout.groups):
        if not copy:
            continue
        own, first = places[number], places[layout.groups.index((block, NO_CLUSTER))]
        if _same(before.weights, own, before.weights, first) and _same(made.weights, own, before.weights, own):
            weights[own] = made.weights[first]
            moments[:, own] = made.moments[:, first]
    return replace(made, weights=weights, moments=moments)


def _same(one: FloatVector, places: IndexVector, other: FloatVector, others: IndexVector) -> bool:
    """Bit for bit."""
    return bool(one[places].tobytes() == other[others].tobytes())


def _places(layout: VersionLayout) -> list[IndexVector]:
    """The places in a version of the entries of each group; those of all copies of a block are in the same order."""
    starts = list(accumulate((each.size for each in layout.parameters), initial=0))
    found: list[list[IndexVector]] = [[] for _ in layout.groups]
    for parameter, start in zip(layout.parameters, starts, strict=False):
        found[parameter.block].append(np.arange(start, start + parameter.size))
    return [np.concatenate(each) for each in found]
