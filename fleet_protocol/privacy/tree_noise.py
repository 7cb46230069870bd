"""Noise of a binary tree of sums, so that the sum of all versions has that of few nodes. Pure Python.

Node n is the sum of the versions that its lowest set bit counts, the last of them version n: node 12 is of versions 9
to 12. The first n versions together are the nodes n, n - lowest bit of n, and so on. That is the tree of Kairouz et al.
2021 ("Practical and private (deep) learning without sampling or shuffling", algorithm 2) without the nodes that no
prefix sum uses, and it has one node for each version (Fenwick 1994). So

    y = x + D z,    D = C^-1,    C x the nodes:  row n of C is 1 at the versions of node n

is one Gaussian mechanism like that of banded noise, and z of node n follows from the seed of version n.
"""

import math
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree of all versions of a bundle, numbered from 1."""

    def coefficients(self, number: int) -> dict[int, float]:
        """Row `number` of D: by the number of each version, what its z counts in the noise of this one. A node takes
        the place of those that it is the sum of, whose noise it takes back.
        """
        return {number: 1.0} | {each: -1.0 for each in nodes_of_prefix(number - 1) if each > number - _lowest(number)}

    def kept(self, number: int) -> frozenset[int]:
        """The versions up to `number` whose z later noise may take back."""
        return frozenset(nodes_of_prefix(number))

    def sensitivity(self, versions: int, at_most: int, versions_between: int) -> float:
        """See `most_moved`."""
        return most_moved(versions, at_most, versions_between)

    def error_of_prefix_sums(self, versions: int) -> float:
        """The root mean square, over versions, of the noise in the sum of all so far; in deviations of one z."""
        return math.sqrt(sum(number.bit_count() for number in range(1, versions + 1)) / versions)


def nodes_of_prefix(number: int) -> tuple[int, ...]:
    """The nodes that the sum of the first so many versions is made of, the newest first."""
    nodes = []
    while number:
        nodes.append(number)
        number -= _lowest(number)
    return tuple(nodes)


@lru_cache(maxsize=64)
def most_moved(versions: int, at_most: int, versions_between: int) -> float:
    """No device moves C x further than this, in Euclidean norm, with updates of norm 1 in `at_most` of so many
    versions, each `versions_between` behind the one before at least.

    C has no negative entry, so updates that are alike move it most: each node by how many of them it counts. Of each
    size of nodes, this takes the pattern that moves those most: full nodes, and what is left in one more. No pattern
    does more, and where none is the worst for all sizes at once, the bound is too large: by up to 16 % in small cases
    (tests/unit/test_tree_noise.py).
    """
    total, size = 0, 1
    updates = min(at_most, -(-versions // versions_between))
    while size <= versions:
        nodes = (versions // size + 1) // 2
        most = -(-size // versions_between)
        full = min(nodes, updates // most)
        total += full * most**2 + (min(most, updates - full * most) ** 2 if full < nodes else 0)
        size *= 2
    return math.sqrt(total)


def _lowest(number: int) -> int:
    """The value of the lowest set bit."""
    return number & -number
