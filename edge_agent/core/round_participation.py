"""Whether a device has work: it is selected for the current round, where a task works in rounds. Pure."""

from fleet_protocol.cohort import is_asked
from fleet_protocol.task_description import TaskDescription


def why_not_asked(
    description: TaskDescription, version: int, device: str, selection_threshold: int, trained_on: int | None
) -> str | None:
    """The reason in words; None where the device may train on `version`, as always in a task without rounds.

    While the task awaits its scale, a device sends its statistics once.
    `selection_threshold` is the manifest's, `trained_on` the version that the device trained on last.
    """
    if description.scaling.is_awaited and trained_on == version:
        return f"{description.task} awaits its scale, for which this device has sent its part"
    if description.aggregation.strategy != "fedavg":
        return None
    if trained_on == version:
        return f"this device has had its part in the round of version {version}"
    if not is_asked(description.task, version, device, selection_threshold):
        return f"the round of version {version} asks other devices"
    return None
