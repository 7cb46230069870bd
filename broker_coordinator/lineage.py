"""Which versions a version grew out of, where operators have rolled back. Pure."""

from collections.abc import Mapping


def lineage(newest: int, rollbacks: Mapping[int, int]) -> list[range]:
    """The versions whose updates are in version `newest`, as ranges, youngest first.

    `rollbacks` names, per version that a rollback made, the version it restored. After a rollback from 7 to 4, version
    8 is 4 again: versions 1 to 4 and those behind 8 count, 5 to 7 do not.
    """
    ranges, upper = list[range](), newest
    for number in sorted(rollbacks, reverse=True):
        if number <= upper:
            ranges.append(range(number + 1, upper + 1))
            upper = rollbacks[number]
    ranges.append(range(1, upper + 1))
    return [each for each in ranges if each]
