"""Plans that searches begin with: what is best for each device alone, and one cut for all. Pure."""

from collections.abc import Sequence

from workbench.split_planning.shared_helpers import Plan, Sharing


def first_plans(sharing: Sharing) -> list[Plan]:
    """What is best for each device alone; and of each cut the plan in which all devices take it that it fits. Helpers
    are taken in turn. Each plan is there once.
    """
    alone = [
        min(range(len(group.options)), key=lambda number, options=group.options: options[number].seconds)  # type: ignore[misc]
        for group in sharing.groups
    ]
    plans = [_in_turn(sharing, alone)]
    for name in dict.fromkeys(option.cut.name for group in sharing.groups for option in group.options):
        places = [[option.cut.name for option in group.options] for group in sharing.groups]
        numbers = [of.index(name) if name in of else best for of, best in zip(places, alone, strict=True)]
        plans.append(_in_turn(sharing, numbers))
    return list(dict.fromkeys(plans))


def _in_turn(sharing: Sharing, numbers: Sequence[int]) -> Plan:
    """These options of the groups, with one helper after the other."""
    plan, turn = [], 0
    for group in sharing.group_of:
        is_helped = bool(sharing.groups[group].options[numbers[group]].cut.helper)
        plan.append((numbers[group], turn % len(sharing.helpers) if is_helped else 0))
        turn += is_helped
    return tuple(plan)
