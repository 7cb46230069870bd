"""A task that was cancelled ends, whatever its own tasks said meanwhile."""

import asyncio


def end_if_cancelled() -> None:
    """End this task where somebody has cancelled it: for whoever goes on after the errors of a task group.

    Before Python 3.13, a group whose tasks fail while it is cancelled raises their errors alone.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
