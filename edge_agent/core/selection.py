"""Whether a device trains for a version, where its task has `[selection]`: it finds out by itself, by what the manifest
tells and what it knows of its last round. Pure.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.cohort import is_asked
from fleet_protocol.kinds import Selection
from fleet_protocol.selection_plan import SelectionPlan, expected_staleness
from fleet_protocol.task_description import TaskDescription

NEW_ARE_BEHIND: Final = 2
"""Rounds; a device without any is owed its first one when it should have had so many: until then it is drawn."""


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """A device's last round that sent an update, of a bundle: its samples, the loss that it began with, and how many
    `seconds` it took. `updates` is how many there were, `mean_before` the fleet's mean when the first of them was.
    """

    samples: int
    loss: float
    seconds: float
    updates: int
    mean_before: float

    def missing(self, plan: SelectionPlan, selection: Selection) -> bool:
        """Whether this device has taken part less than the task lets anybody."""
        return self.updates + 1 <= plan.fairness * (selection.mean_updates - self.mean_before)

    def utility(self, plan: SelectionPlan, selection: Selection) -> float:
        """What this device is worth now."""
        staleness = expected_staleness(self.seconds, selection.version_seconds)
        return plan.utility(self.samples, self.loss) * plan.discount(staleness, selection.version_seconds)


def after_round(
    before: RoundFigures | None, selection: Selection | None, samples: int, loss: float, seconds: float
) -> RoundFigures:
    """Those with one more round on so many `samples` as count, which began with this `selection`; None where no device
    had sent an update by then.
    """
    if before is None:
        mean_before = selection.mean_updates if selection else 0.0
        return RoundFigures(samples, loss, seconds, 1, mean_before)
    return RoundFigures(samples, loss, seconds, before.updates + 1, before.mean_before)


def why_not_selected(
    task: TaskDescription,
    version: int,
    device: str,
    selection: Selection | None,
    figures: RoundFigures | None,
    *,
    has_trained: bool,
) -> str | None:
    """Why no round from `version` begins, in words; None where one may. `selection` is the manifest's, None where no
    device has sent an update; `figures` are of the bundle, None before this device's first update. Who `has_trained`
    from this version is worth as much as before, and would fill the buffer alone: it waits for the next.
    """
    plan = task.selection
    if plan is None or selection is None or selection.takes_everybody:
        return None
    if has_trained:
        return f"this device has had its round from version {version}, and others are to have theirs"
    if figures is None:
        is_owed = plan.fairness * selection.mean_updates >= NEW_ARE_BEHIND
    else:
        is_owed = figures.missing(plan, selection)
    by_lot = figures is None or plan.method == "power_of_choice"
    if by_lot and not is_owed and not is_asked(task.task, version, device, selection.drawn_below):
        return f"others are drawn to train from version {version}"
    if is_owed or figures is None or (utility := figures.utility(plan, selection)) >= selection.least:
        return None
    return f"version {version} asks for a utility of {selection.least:.4g}, and this device's is {utility:.4g}"
