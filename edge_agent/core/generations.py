"""What of a task's error feedback is carried over into a round, when the task may have a new generation. Pure."""

from collections.abc import Sequence

from edge_agent.core.outbox import OutboxRow
from fleet_protocol.task_description import TaskDescription


def carried_over(
    task: TaskDescription, generation: int, residual: bytes, residual_generation: int, returned: Sequence[OutboxRow]
) -> tuple[bytes, Sequence[OutboxRow]]:
    """The state of the error feedback, and the rejected payloads that a round of `generation` takes back into it.

    What compression left out is worth as much to another generation of the same bundle. The estimate of EF21
    is not: it counts updates that the coordinator may have lost, and begins anew; it takes back only what was added to
    it. Nor is what a device remembers of the statistics that it sent for a solved head.
    """
    if task.update.feedback != "ef21" and task.solved_head is None:
        return residual, returned
    state = residual if residual_generation == generation else b""
    return state, [row for row in returned if row.generation == generation]
