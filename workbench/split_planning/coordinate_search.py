"""A good plan for a fleet that has too many to look at: one group's choice after the other. Pure.

A move takes one device, or all that are alike and choose alike, to another choice; the best move of each is made where
it is better, until none is. So no single move improves the result. It is done from each of `first_plans`, as from one
alone it may end where only two moves at once would help: where one device is the slowest, the others gain nothing.
"""

from collections.abc import Iterator

from workbench.split_planning.first_plans import first_plans
from workbench.split_planning.shared_helpers import Plan, Share, Shares, Sharing


def search_by_coordinates(sharing: Sharing) -> Plan:
    """The best plan at which no move helps any more. It draws nothing."""
    ends = (_improved(sharing, sharing.shares(plan)) for plan in first_plans(sharing))
    return sharing.plan_of(min(ends, key=sharing.score))


def _improved(sharing: Sharing, shares: Shares) -> Shares:
    settled: set[Share] = set()
    while open_shares := sorted(share for share, _ in shares if share not in settled):
        share = open_shares[0]
        better = min(_moves(sharing, shares, share), key=sharing.score, default=shares)
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
        for other in sharing.choices(group):
            if other == choice:
                continue
            after = {**counts, share: counts[share] - moved}
            after[group, other] = after.get((group, other), 0) + moved
            yield frozenset((each, count) for each, count in after.items() if count)
