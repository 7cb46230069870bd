"""A copy that no device has trained yet is copy 0, whatever becomes of that. Pure.

    copy c = copy 0, after each version in front of which it was copy 0 and in which it has not moved

So a cluster begins with what devices without one have learned by then; from its first update on it goes its own way.
Nothing says beside the weights which copies are trained: a rollback and a replay find it out as the first time.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from broker_coordinator.aggregation.server_state import ServerState
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.version_layout import VersionLayout


def following(made: ServerState, before: ServerState, layout: VersionLayout) -> ServerState:
    """The version `made` after `before`, with copy 0, and the optimiser's moments of it, in every untrained copy."""
    tensors = _tensors(layout)
    weights, moments = made.weights.copy(), made.moments.copy()
    for number, (block, copy) in enumerate(layout.groups):
        if not copy:
            continue
        own, first = tensors[number], tensors[layout.groups.index((block, NO_CLUSTER))]
        was_first = _same(before.weights, own, before.weights, first)
        if was_first and _same(made.weights, own, before.weights, own):
            for place, other in zip(own, first, strict=True):
                weights[place] = made.weights[other]
                moments[:, place] = made.moments[:, other]
    return replace(made, weights=weights, moments=moments)


def _same(one: FloatVector, places: Sequence[slice], other: FloatVector, others: Sequence[slice]) -> bool:
    """Bit for bit."""
    return all(
        one[place].tobytes() == other[other_place].tobytes() for place, other_place in zip(places, others, strict=True)
    )


def _tensors(layout: VersionLayout) -> list[list[slice]]:
    """Where the tensors of each group lie in a version; those of all copies of a block are in the same order."""
    starts = accumulate((each.size for each in layout.parameters), initial=0)
    found: list[list[slice]] = [[] for _ in layout.groups]
    for parameter, start in zip(layout.parameters, starts, strict=False):
        found[parameter.block].append(slice(start, start + parameter.size))
    return found
