"""One device, one vote: a rule compares devices, however often each of them sent. Pure.

weight = mean of a device's weights;     delta = sum(weight_i * delta_i) / sum(weight_i)
"""

from collections.abc import Iterable, Sequence

import numpy as np

from broker_coordinator.aggregation.contribution import contribution_of
from fleet_protocol.codec import SparseUpdate

Vote = tuple[float, SparseUpdate]


def one_vote_each(sent: Iterable[tuple[str, Vote]], size: int) -> list[Vote]:
    """Weights and deltas of updates, each with its device's name, as one weight and delta for every device.

    An entry that some of a device's updates do not hold is zero in these, as in any mean. In the order of each
    device's first update; `size` is the length of the flat weights.
    """
    of_devices: dict[str, list[Vote]] = {}
    for device, vote in sent:
        of_devices.setdefault(device, []).append(vote)
    return [_mean(votes, size) if len(votes) > 1 else votes[0] for votes in of_devices.values()]


def _mean(votes: Sequence[Vote], size: int) -> Vote:
    weight = sum(weight for weight, _ in votes) / len(votes)
    places = np.unique(np.concatenate([delta.indices for _, delta in votes]))
    mean = contribution_of(votes, size).mean_delta()
    return weight, SparseUpdate(places, mean[places].astype(np.float32))
