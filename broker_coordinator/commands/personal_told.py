"""What a task's `[personal]` means for figures and files of the shared model: what devices answer with is another."""

from fleet_protocol.task_description import TaskDescription

WHAT = {
    "parts": "never leave a device; here are the values that a new one begins with",
    "ditto": "each device answers with a copy of its own, pulled towards this model",
    "reptile": "this model is one to begin with: each device adapts it to its samples",
    "maml": "this model is one to begin with: each device adapts it to its samples",
}


def personal_told(description: TaskDescription) -> dict[str, object]:
    """The field that is shown beside the shared model; none where devices have no model of their own."""
    if description.personal is None:
        return {}
    own = ", ".join(each.name for each in description.parameters if each.name in description.own_parameters)
    return {"personal": f"{own} {WHAT[description.personal.method]}".lstrip()}
