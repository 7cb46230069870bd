"""How stale an update is: how many versions were made since the one that it began with. Asked here by all. Pure.

    staleness = (number of the version that holds it) - 1 - base_version

Whoever takes an update in foresees that version: each full buffer that waits before it is as good as one. Where
suspicious updates are held back, nobody knows before a version is due which of its buffer it will hold. So there
admission, and whoever releases, count versions that are made, and staleness is settled where the version is made.
"""

from fleet_protocol.aggregation_plan import AggregationPlan


def is_foreseen(plan: AggregationPlan) -> bool:
    """Whether each full buffer will be a version: else staleness is settled once the version is made."""
    return not plan.holds


def versions_ahead(plan: AggregationPlan, waiting: int, buffer_size: int) -> int:
    """How many versions what waits is foreseen to make before the next update that comes is in one."""
    return waiting // buffer_size if is_foreseen(plan) else 0


def staleness_at(newest: int, base_version: int) -> int:
    """That of an update which the version after `newest` holds."""
    return newest - base_version


def oldest_that_counts(plan: AggregationPlan, newest: int) -> int:
    """The version that an update in the one after `newest` began with at the earliest, to be not too stale."""
    return newest - plan.max_staleness
