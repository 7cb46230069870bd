"""Which place each device has in the roster of a task that is learned by gossip, and who has none. Pure."""

from collections.abc import Sequence

from fleet_protocol.gossip import FEWEST_DEVICES, too_few
from fleet_protocol.gossip_plan import TopologyName
from fleet_protocol.limits import MAX_ROSTER_DEVICES


def places(before: Sequence[str], approved: Sequence[str]) -> list[str]:
    """The names of `approved` devices in the order of their places, where they were as in `before`.

    Whoever stays keeps its place, as its neighbours follow from it. The place of one that is gone is taken by a
    newcomer, in the order in which these are given, or else by whoever has the last place. Of more than
    `MAX_ROSTER_DEVICES`, the newest have none.
    """
    remaining, known = set(approved), set(before)
    newcomers = iter([name for name in approved if name not in known])
    found = [name if name in remaining else next(newcomers, None) for name in before]
    while None in found:
        if (last := found.pop()) is not None:
            found[found.index(None)] = last
    return [*(name for name in found if name is not None), *newcomers][:MAX_ROSTER_DEVICES]


def why_not_all(topology: TopologyName, approved: int) -> list[str]:
    """Why not all of so many approved devices learn such a task, in words."""
    found = []
    if words := too_few(topology, approved):
        lacking = FEWEST_DEVICES[topology] - approved
        found.append(
            f"no device trains yet, {words}: approve {lacking} more (broker-coordinator devices approve NAME KEY), or"
            " publish the task without [gossip], as a coordinator takes any number"
        )
    if approved > MAX_ROSTER_DEVICES:
        found.append(
            f"{approved - MAX_ROSTER_DEVICES} of {approved} approved devices have no place in the roster, which has"
            f" {MAX_ROSTER_DEVICES} at most: revoke devices that are gone, or divide the fleet"
        )
    return found
