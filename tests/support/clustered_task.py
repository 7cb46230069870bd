"""Tasks whose versions have copies for clusters, of which only the description exists."""

import msgspec

from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from tests.support.split_task import TASK as SPLIT_TASK

DENSE = UpdatePlan(1.0, "float32", "dense")


def clustered(most: int = 2, *patterns: str, base: TaskDescription = SPLIT_TASK) -> TaskDescription:
    """The task with copies of the parameters that the patterns name, whose updates lose nothing on their way."""
    return msgspec.structs.replace(base, clusters=ClusterPlan(most, patterns), update=DENSE)


WHOLE = msgspec.structs.replace(
    SPLIT_TASK,
    split=None,
    parameters=[msgspec.structs.replace(each, block=0) for each in SPLIT_TASK.parameters],
)
"""The same tensors in a model that does not divide."""
