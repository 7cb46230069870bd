"""Which rows of the sample store a round may use. Agent and child use the same query."""

from typing import Final

from fleet_protocol.task_description import TaskDescription

BUDGETS_OF_TASK: Final = "SELECT sample, budget FROM budgets WHERE (SELECT task FROM samples WHERE id = sample) = ?"
"""The budget of each sample of a task that names one."""
FIRST_NUMBERS_OF_TASK: Final = (
    "SELECT sample, first FROM corrected WHERE (SELECT task FROM samples WHERE id = sample) = ?"
)
"""The number under which each corrected sample of a task came: what rounds have told of it is charged by that."""


def rows_to_train_on(description: TaskDescription) -> tuple[str, tuple[str | int, ...]]:
    """The query for (id, values, label) of each sample that a round may use, oldest first, and its placeholders.

    The values are those that training takes: the inputs, or the features where the task has a backbone. A sample that
    came in after the features were computed waits for the next round.
    """
    condition, sizes = fitting(description)
    if description.backbone is None:
        query = f"SELECT id, inputs, label FROM samples WHERE task = ? AND {condition} ORDER BY id"  # noqa: S608
        return query, (description.task, *sizes)
    source = "samples JOIN features ON sample = id"
    query = f"SELECT id, features, label FROM {source} WHERE backbone = ? AND task = ? AND {condition} ORDER BY id"  # noqa: S608
    return query, (description.backbone_hash, description.task, *sizes)


def fitting(description: TaskDescription) -> tuple[str, tuple[int, int]]:
    """The condition, in SQL, that a stored sample fits the task's schema, and the values of its placeholders.

    A class of the whole sample is stored as a number. Any other label is float32 in bytes; without one there are none.
    """
    label = description.label
    inputs = 4 * description.input.size
    if label.is_index:
        return "length(inputs) = ? AND typeof(label) = 'integer' AND label >= 0 AND label < ?", (inputs, label.classes)
    return "length(inputs) = ? AND typeof(label) = 'blob' AND length(label) = ?", (inputs, 4 * label.size)
