"""Whether a device has work: it is selected for the current round, where a task works in rounds, or by what it is
worth, where a task selects. Pure.
"""

from edge_agent.core.selection import RoundFigures, why_not_selected
from fleet_protocol.cohort import is_asked
from fleet_protocol.kinds import Selection
from fleet_protocol.task_description import TaskDescription


def why_not_asked(
    description: TaskDescription,
    version: int,
    device: str,
    selection_threshold: int,
    trained_on: int | None,
    *,
    selection: Selection | None = None,
    figures: RoundFigures | None = None,
) -> str | None:
    """The reason in words; None where the device may train on `version`, as always in a task without rounds.

    While the task awaits its scale, a device sends its statistics once.
    `selection_threshold` and `selection` are the manifest's, `trained_on` the version that the device trained on last,
    and `figures` those of its last round.
    """
    if description.scaling.is_awaited and trained_on == version:
        return f"{description.task} awaits its scale, for which this device has sent its part"
    if description.aggregation.strategy != "fedavg":
        has_trained = trained_on == version
        return why_not_selected(description, version, device, selection, figures, has_trained=has_trained)
    if trained_on == version:
        return f"this device has had its part in the round of version {version}"
    if not is_asked(description.task, version, device, selection_threshold):
        return f"the round of version {version} asks other devices"
    return None
