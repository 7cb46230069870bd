"""Whether a device is selected for the current round of a task that works in rounds. Pure."""

from fleet_protocol.bundle import TaskDescription
from fleet_protocol.cohort import is_asked


def why_not_asked(
    description: TaskDescription, version: int, device: str, selection_threshold: int, trained_on: int | None
) -> str | None:
    """The reason in words; None where the device may train on `version`, as always in a task without rounds.

    `selection_threshold` is the manifest's, `trained_on` the version that the device trained on last.
    """
    if description.aggregation.strategy != "fedavg":
        return None
    if trained_on == version:
        return f"this device has had its part in the round of version {version}"
    if not is_asked(description.task, version, device, selection_threshold):
        return f"the round of version {version} asks other devices"
    return None
