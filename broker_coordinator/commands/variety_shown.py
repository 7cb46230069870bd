"""What `tasks show` says of the pictures that a task's generator draws."""

from dataclasses import dataclass

import msgspec
from sqlalchemy import Engine

from broker_coordinator.storage.variety_registry import VarietyRegistry, VarietyTold
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class VarietyShown:
    """The field of `tasks show`, none where nothing is drawn; and which clusters' pictures are alike, in words."""

    field: dict[str, list[dict[str, object]]]
    advice: list[str]


def variety_shown(engine: Engine, task: TaskDescription, begun: int) -> VarietyShown:
    """As the coordinator has measured it last. Of a version before `begun`, which goes back to another one or is that
    of another bundle, there is nothing to advise any more.
    """
    if task.drawing is None:
        return VarietyShown({}, [])
    told = VarietyRegistry(engine).last(task.task)
    if told is None:
        return VarietyShown({"variety": []}, [])
    rows = [{"version": told.version, **msgspec.structs.asdict(each)} for each in told.clusters]
    return VarietyShown({"variety": rows}, _advice(told) if told.version >= begun else [])


def _advice(told: VarietyTold) -> list[str]:
    return [
        f"pictures of a class have become alike in version {told.version}"
        f"{f', cluster {each.cluster}' if each.cluster else ''}: their variety is {each.variety:.3g}, and was"
        f" {each.greatest:.3g} in version {each.greatest_in}; draw with both (`edgeflock generate`), and go back with"
        " `tasks rollback` if they are worse"
        for each in told.clusters
        if each.narrow
    ]
