"""What a device's owner demands of every task before it learns from the device's samples: settings. Pure."""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.privacy.sample_privacy import Delta
from fleet_protocol.task_description import TaskDescription


class PrivacySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this device demands of tasks (docs/privacy.md). A task that promises less is not trained."""

    at_least: Literal["nothing", "samples"] = "nothing"
    """`samples`: what the device sends of a round hides each sample by noise, as `[privacy.samples]` of a task says."""
    epsilon: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """The most that all rounds of one task together may tell of a sample, where the task itself allows more. 0: as much
    as the task allows. A sample that has cost so much is trained on no more."""
    delta: Delta = 1e-5
    """The probability for which `epsilon` does not speak."""
    samples_alone: bool = False
    """Have the graph look at one sample at a time: the guarantee then holds whatever graph a coordinator sends, and a
    round takes up to `batch_size` times as long."""

    def refusal(self, task: TaskDescription) -> str | None:
        """Why this device does not learn for the task, in words; None where it does."""
        promised = task.sample_privacy
        if promised is None:
            if self.at_least == "nothing":
                return None
            return (
                f"{task.task} has no [privacy.samples], and the owner of this device demands it"
                " (at_least = 'samples' in [privacy] of agent.toml)"
            )
        steps = task.training.steps
        if self.epsilon and (cost := promised.epsilon_after(steps, self.delta)) > self.epsilon:
            return (
                f"one round of {task.task} tells up to epsilon {cost:.3g} of a sample, and the owner of this device"
                f" allows {self.epsilon:g} (epsilon in [privacy] of agent.toml)"
            )
        return None
