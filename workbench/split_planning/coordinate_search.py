"""A good plan for a fleet that has too many to look at: one group's choice after the other. Pure.

A move takes one device, or all that are alike and choose alike, to another choice; the best move of each is made where
it is better, until none is. So no single move improves the result. It is done from each of `first_plans`, as from one
alone it may end where only two moves at once would help: where one device is the slowest, the others gain nothing.
"""

from collections.abc import Iterator
from typing import Final

from workbench.split_planning.first_plans import first_plans
from workbench.split_planning.shared_helpers import Choice, Plan, Share, Shares, Sharing

MOST_MOVES: Final = 20_000
"""That are looked at in all; of fleets with hundreds of helpers more than these are left out."""


def search_by_coordinates(sharing: Sharing) -> Plan:
    """The best plan at which no move helps any more. It draws nothing."""
    first = first_plans(sharing)
    ends = (_improved(sharing, sharing.shares(plan), MOST_MOVES // len(first)) for plan in first)
    return sharing.plan_of(min(ends, key=sharing.score))


def _improved(sharing: Sharing, shares: Shares, most_moves: int) -> Shares:
    settled: set[Share] = set()
    while most_moves > 0 and (open_shares := sorted(share for share, _ in shares if share not in settled)):
        share = open_shares[0]
        moves = list(_moves(sharing, shares, share))
        most_moves -= len(moves)
        better = min(moves, key=sharing.score, default=shares)
        if sharing.score(better) < sharing.score(shares):
            shares = better
            settled.clear()
        else:
            settled.add(share)
    return shares


def _moves(sharing: Sharing, shares: Shares, share: Share) -> Iterator[Shares]:
    """One device of a share, and all of them, to every other choice of their group."""
    counts = dict(shares)
    group, choice = share
    for moved in {1, counts[share]}:
        for other in _unlike_choices(sharing, shares, group):
            if other != choice:
                after = {**counts, share: counts[share] - moved}
                after[group, other] = after.get((group, other), 0) + moved
                yield frozenset((each, count) for each, count in after.items() if count)


def _unlike_choices(sharing: Sharing, shares: Shares, group: int) -> list[Choice]:
    """Of helpers that are alike and have the same devices, the first one."""
    there: dict[int, set[tuple[int, int, int]]] = {}
    for (owner, (number, helper)), count in shares:
        there.setdefault(helper, set()).add((owner, number, count))
    unlike = {
        (number, sharing.helpers[helper] if sharing.helpers else None, frozenset(there.get(helper, ()))): (
            number,
            helper,
        )
        for number, helper in reversed(sharing.choices(group))
    }
    return sorted(unlike.values())
