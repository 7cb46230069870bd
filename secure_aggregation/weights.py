"""Whole weights of a set's updates, none of which a few devices have for themselves. Pure.

A weighted sum is that of each weight's group times the weight. So whoever sees it learns no more than the sums of the
groups, and what hides a device is how many share its weight.
"""

from collections import defaultdict
from collections.abc import Mapping


def whole_weight(share: float, allowed: tuple[int, ...]) -> int:
    """The weight nearest to a `share`, from 0 to 1, of the largest one allowed; the smallest one at least."""
    return max(allowed[0], round(share * allowed[-1]))


def shared_weights(wanted: Mapping[str, int], fewest: int) -> dict[str, int]:
    """By device, the weight that is wanted or one near to it that at least `fewest` devices have in all.

    The smallest group that is too small joins that of the nearest weight; of two, that of more devices, else of the
    smaller weight. Fewer devices than that are one group.
    """
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for device, weight in wanted.items():
        groups[weight].append(device)
    while len(groups) > 1:
        devices, weight = min((len(devices), weight) for weight, devices in groups.items())
        if devices >= fewest:
            break
        moved = groups.pop(weight)
        nearest = min(groups, key=lambda other: (abs(other - weight), -len(groups[other]), other))
        groups[nearest] += moved
    return {device: weight for weight, devices in groups.items() for device in devices}
