"""The version that a cohort's masked updates make, once helpers have told the sum of their masks. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np

from broker_coordinator.consumers.masked_update import SumOfMasks
from broker_coordinator.serving.making import NextVersion
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.waiting import WaitingPayload
from broker_coordinator.storage.cohort_registry import StoredCohort
from fleet_protocol.kinds import Signed
from secure_aggregation.coordinator import sum_of_masks
from secure_aggregation.messages import CohortSet


@dataclass(frozen=True, slots=True)
class SummedCohort:
    """A version that a cohort has made but that is not committed, of the payloads at `positions`, by `devices`."""

    made: NextVersion
    stored: StoredCohort
    positions: list[int]
    devices: frozenset[str]
    masks: bytes


def summed_cohort(
    task: ServedTask,
    stored: StoredCohort,
    cohort_set: CohortSet,
    updates: Iterable[WaitingPayload],
    answers: list[Signed],
) -> SummedCohort:
    """What `answers` of helpers make of a set; `updates` are the cohort's, of which the first of each device counts.

    Raises:
        VoidCohortError: too few answers, answers that disagree, or a sum that no updates have.
    """
    names = frozenset(member.device for member in cohort_set.members)
    first: dict[str, WaitingPayload] = {}
    for each in updates:
        if each.device in names:
            first.setdefault(each.device, each)
    manifest = stored.cohort.manifest
    masks = sum_of_masks(manifest, cohort_set, answers).astype("<u4").tobytes()
    items = [*(each.item for each in first.values()), SumOfMasks(manifest, cohort_set, masks)]
    with np.errstate(all="ignore"):
        state = task.consumer.next_state(task.state, items, task.description)
    made = NextVersion(
        task.check(state),
        state,
        task.participants,
        task.watch.after(task.newest.number + 1, []),
        update_count=len(first),
        last_position=max(each.position for each in first.values()),
        median_staleness=median(each.staleness for each in first.values()),
        mean_loss=None,
    )
    return SummedCohort(made, stored, [each.position for each in first.values()], names, masks)
