"""Which number a cluster gets that was found anew: the one that most of its devices have already. Pure."""

from collections import Counter
from collections.abc import Mapping

from fleet_protocol.cluster_plan import NO_CLUSTER


def numbered(found: Mapping[str, int], now: Mapping[str, int], most: int) -> dict[str, int]:
    """The cluster of each device in `found`, 1 to `most`, where those of its label stay together.

    The label and the number with most devices in common are matched first. What is left gets free numbers, those with
    more devices first; beyond `most`, `NO_CLUSTER`. A single label whose devices have no cluster `now` gets none: they
    are one kind, and train the copy that they have trained.
    """
    sizes = Counter(found.values())
    common = Counter((label, now.get(name, NO_CLUSTER)) for name, label in found.items())
    number_of: dict[int, int] = {}
    for (label, number), _ in sorted(common.items(), key=lambda each: (-each[1], each[0])):
        is_free = number not in number_of.values() and NO_CLUSTER < number <= most
        if is_free and label not in number_of:
            number_of[label] = number
    if len(sizes) == 1 and not number_of:
        return dict.fromkeys(found, NO_CLUSTER)
    free = iter([number for number in range(1, most + 1) if number not in number_of.values()])
    for label in sorted(sizes.keys() - number_of.keys(), key=lambda label: (-sizes[label], label)):
        number_of[label] = next(free, NO_CLUSTER)
    return {name: number_of[label] for name, label in found.items()}
