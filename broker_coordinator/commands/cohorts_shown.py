"""How the last cohorts of a task with masks went, as `tasks show` says it."""

from sqlalchemy import Engine

from broker_coordinator.storage.cohort_registry import CohortRegistry
from fleet_protocol.task_description import TaskDescription

SHOWN = 5


def cohorts_shown(engine: Engine, task: TaskDescription) -> dict[str, object]:
    """The newest first: what became of each, with the version that it made or the reason why it is void."""
    if task.masks is None:
        return {}
    found = CohortRegistry(engine).last(task.task, SHOWN)
    return {
        "cohorts": [
            {"cohort": each.number, "state": each.state.value, "version": each.version, "reason": each.reason}
            for each in found
        ]
    }
