"""Which parts of a model an update may say that it has trained. Pure.

Of a task's `split`, a device those blocks that a cut leaves it; of a task's `clusters`, the copy of the device's own,
or the one of devices without a cluster.
"""

from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import Update
from fleet_protocol.split_plan import SplitPlan, device_blocks
from fleet_protocol.task_description import TaskDescription


def cut_of(update: Update, task: TaskDescription, sender: str, *, from_helper: bool) -> str:
    """The name of the cut that a device's update was trained with; empty where it holds all blocks, or is a helper's.

    Raises:
        ProtocolError: `OUT_OF_BOUNDS` or `MALFORMED`, saying what can't be.
    """
    if not update.held:
        return ""
    if task.split is None or len(update.held) != len(task.split.blocks):
        blocks = len(task.split.blocks) if task.split else 0
        raise ProtocolError(
            Reason.MALFORMED, f"samples of {len(update.held)} blocks; {task.task} is divided into {blocks}"
        )
    if max(update.held) > update.samples:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"{max(update.held)} samples of a block; the update says {update.samples} in all"
        )
    held = {block for block, samples in enumerate(update.held) if samples > 0}
    return _check_helpers(held, task.split, sender) if from_helper else _devices_cut(held, task.split, sender)


def check_cluster(update: Update, task: TaskDescription, sender: str, given: int | None) -> None:
    """Check the copy that an update was made of, where its sender was `given` this cluster: None without `clusters`.

    Raises:
        ProtocolError: `MALFORMED` or `WRONG_CLUSTER`, saying what can't be.
    """
    if update.cluster == NO_CLUSTER:
        return
    if task.clusters is None:
        raise ProtocolError(Reason.MALFORMED, f"trained cluster {update.cluster}; {task.task} has no clusters")
    if update.cluster != given:
        here = f"in cluster {given}" if given else "in no cluster"
        raise ProtocolError(
            Reason.WRONG_CLUSTER,
            f"trained cluster {update.cluster} of {task.task}; {sender} is {here}, and trains that one from now on",
        )


def _check_helpers(held: set[int], split: SplitPlan, sender: str) -> str:
    if not held <= _of_helpers(split):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"{sender} is a helper and says that it has held the blocks {sorted(held)}; cuts leave helpers"
            f" {sorted(_of_helpers(split))}",
        )
    return ""


def _of_helpers(split: SplitPlan) -> set[int]:
    return {block for cut in split.cuts for first, end in cut.helper for block in range(first, end)}


def _devices_cut(held: set[int], split: SplitPlan, sender: str) -> str:
    if len(held) == len(split.blocks):
        return ""
    for cut in split.cuts:
        if held == set(device_blocks(split, cut)):
            return cut.name
    raise ProtocolError(
        Reason.OUT_OF_BOUNDS,
        f"{sender} says that it has held the blocks {sorted(held)}; no cut of the task leaves a device these. If it is"
        f" a helper, an operator says so with: broker-coordinator helpers allow {sender}",
    )
