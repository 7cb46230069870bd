"""A task's scale, as `tasks show` tells it."""

from sqlalchemy import Engine

from broker_coordinator.consumers.statistics import read_scale
from broker_coordinator.storage.task_scales import devices_reported, scale_made
from fleet_protocol.scaling import UNSCALED
from fleet_protocol.task_description import TaskDescription


def scale_shown(engine: Engine, task: TaskDescription) -> dict[str, object]:
    """Where the task has its scale from, and whose units differ from the others'."""
    state = scale_made(engine, task.task)
    if task.scaling.is_awaited:
        return {"scale": f"awaited; devices that have reported: {devices_reported(engine, task.task)}"}
    if not state:
        return {"scale": "none" if task.scaling == UNSCALED else "from task.toml"}
    scale = read_scale(state)
    left_out = [{"device": device, "reason": reason} for device, reason in scale.left_out.items()]
    return {"scale": f"of {scale.samples} samples of {scale.devices} devices", "units_differ": left_out}
