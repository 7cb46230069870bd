"""What a device's owner demands of every task before it learns from the device's samples: settings. Pure."""

from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

from edge_agent.core.budget_rules import BudgetRule
from fleet_protocol.configuration import PublicKey
from fleet_protocol.limits import MAX_COHORT_DEVICES, MAX_MASK_HELPERS
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.privacy.renyi import noise_for
from fleet_protocol.privacy.sample_privacy import LEAST_NOISE, MOST_NOISE, Delta, SamplePrivacy
from fleet_protocol.task_description import TaskDescription

_BELONGS_TO: Final = {
    "epsilon": "samples",
    "budgets": "samples",
    "samples_alone": "samples",
    "trusted_mask_helpers": "masks",
    "device_epsilon": "noised masks",
}
"""Which demand each setting is a part of: without that, an owner would believe in a limit that any task passes."""


class PrivacySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this device demands of tasks (docs/privacy.md). A task that promises less is not trained."""

    at_least: Literal[
        "nothing", "samples", "masks", "samples and masks", "noised masks", "samples and noised masks"
    ] = "nothing"
    """`samples`: what the device sends of a round hides each sample by noise, as `[privacy.samples]` of a task says.
    `masks`: the coordinator sees sums of many devices' updates alone, as `[privacy.masks]` of a task says. `noised
    masks`: and devices add noise to them that hides each device, as `[privacy.masks.noise]` says."""
    trusted_mask_helpers: list[PublicKey] = []
    """For `masks`: the keys of the mask helpers that this device's owner trusts, as `edgeflock-helper mask-key` prints
    them there. A task that names any other is refused."""
    fewest_devices: Annotated[int, msgspec.Meta(ge=2, le=MAX_COHORT_DEVICES)] = 10
    """For `masks`: the fewest devices that a sum may be of."""
    fewest_colluding: Annotated[int, msgspec.Meta(ge=0, le=MAX_MASK_HELPERS - 1)] = 1
    """For `masks`: how many helpers may work with the coordinator, and learn nothing all the same. 0: a key holder may
    be alone, and must not work with the coordinator."""
    epsilon: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """The most that all rounds of one task together may tell of a sample, where the task itself allows more. 0: as much
    as the task allows. A sample that has cost so much is trained on no more."""
    delta: Delta = 1e-5
    """The probability for which `epsilon` does not speak."""
    device_epsilon: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """For `noised masks`: the most that all updates of one task together, of whatever bundles, may tell of this device.
    0: as much as each bundle allows. Once it is reached, the device sends that task no more."""
    noise: Literal["task", "own", "none"] = "task"
    """How much is added in tasks that let owners choose; in others it is always the task's. `own`: as much as `epsilon`
    needs for as many rounds as the task plans, and never less than the task's. `none`: none, so that this device's
    updates hide no sample."""
    budgets: list[BudgetRule] = []
    """Budgets that some samples have by themselves, for `samples` in `at_least`."""
    samples_alone: bool = False
    """Have the graph look at one sample at a time: the guarantee then holds whatever graph a coordinator sends, and a
    round takes up to `batch_size` times as long."""

    def __post_init__(self) -> None:
        """Refuse a demand that no task meets; raises ValueError."""
        fewest = 2 if self.fewest_colluding else 1
        if self.demands_masks and len(self.trusted_mask_helpers) < fewest:
            raise ValueError(
                f"trusted_mask_helpers: at_least = {self.at_least!r} and fewest_colluding = {self.fewest_colluding}"
                f" need {fewest} keys or more; write what `edgeflock-helper mask-key` prints on each"
            )
        if self.noise == "own" and not self.epsilon:
            raise ValueError("noise = 'own' follows from epsilon; write epsilon, or noise = 'task'")
        if self.noise == "none" and (self.epsilon or "samples" in self.at_least):
            raise ValueError(
                "noise = 'none' hides no sample, and epsilon and at_least = 'samples' demand it; leave them out, or"
                " noise"
            )
        for name, part in _BELONGS_TO.items():
            if getattr(self, name) and part not in self.at_least:
                raise ValueError(
                    f"{name}: at_least = {self.at_least!r} lets tasks train without what it is for; write an at_least"
                    f" with {part!r} in it, or leave {name} out"
                )
        names = [rule.name for rule in self.budgets]
        if len(set(names)) != len(names):
            raise ValueError(f"budgets: a name is given twice in {names}; give each its own")

    @property
    def demands_masks(self) -> bool:
        """Whether no single update may be seen."""
        return "masks" in self.at_least

    @property
    def demands_noise(self) -> bool:
        """Whether sums have to hide each device."""
        return "noised" in self.at_least

    def refusal(self, task: TaskDescription) -> str | None:
        """Why this device does not learn for the task, in words; None where it does."""
        if self.demands_masks and (refused := self._why_masks_refused(task)):
            return refused
        promised = task.sample_privacy
        if promised is None:
            if "samples" not in self.at_least:
                return None
            return (
                f"{task.task} has no [privacy.samples], and the owner of this device demands it"
                f" (at_least = {self.at_least!r} in [privacy] of agent.toml)"
            )
        return self._why_samples_refused(task, promised)

    def _why_samples_refused(self, task: TaskDescription, promised: SamplePrivacy) -> str | None:
        if refused := next(filter(None, (rule.refusal(task) for rule in self.budgets)), None):
            return refused
        chosen = self.chosen(promised)
        if chosen is None:
            return (
                f"{task.task}: no noise up to {MOST_NOISE:g} keeps epsilon {self.epsilon:g} for as many rounds as the"
                " task plans; raise epsilon in [privacy] of agent.toml, or write noise = 'task'"
            )
        steps = task.training.steps
        if self.epsilon and (cost := chosen.epsilon_after(steps, self.delta)) > self.epsilon:
            return (
                f"one round of {task.task} tells up to epsilon {cost:.3g} of a sample, and the owner of this device"
                f" allows {self.epsilon:g} (epsilon in [privacy] of agent.toml)"
            )
        return None

    def chosen(self, promised: SamplePrivacy) -> SamplePrivacy | None:
        """The plan with the noise that this device adds, 0 for none; None where no noise suffices."""
        if self.noise == "task" or not promised.owners_choose:
            return promised
        noise = 0.0 if self.noise == "none" else _noise_of(self.epsilon, self.delta, promised)
        return None if noise is None else msgspec.structs.replace(promised, noise_multiplier=noise)

    def _why_masks_refused(self, task: TaskDescription) -> str | None:
        plan = task.masks
        if plan is None:
            return (
                f"{task.task} has no [privacy.masks], and the owner of this device demands it"
                f" (at_least = {self.at_least!r} in [privacy] of agent.toml)"
            )
        trusted = {key.strip().lower() for key in self.trusted_mask_helpers}
        for name, key in plan.helpers.items():
            if key.strip().lower() not in trusted:
                return (
                    f"{task.task} has a mask helper {name} with the key {key.strip()}, which is not among"
                    " trusted_mask_helpers in [privacy] of agent.toml"
                )
        floors = (
            ("fewest_devices", plan.fewest_devices, self.fewest_devices),
            ("colluding", plan.colluding, self.fewest_colluding),
        )
        for name, offered, asked in floors:
            if offered < asked:
                return (
                    f"{task.task} has {name} = {offered} in [privacy.masks], and the owner of this device asks for"
                    f" {asked}"
                )
        return self._why_noise_refused(task, plan)

    def _why_noise_refused(self, task: TaskDescription, plan: MaskPlan) -> str | None:
        if self.demands_noise and plan.noise is None:
            return (
                f"{task.task} has no [privacy.masks.noise], and the owner of this device demands it"
                f" (at_least = {self.at_least!r} in [privacy] of agent.toml)"
            )
        return None


@lru_cache(maxsize=16)
def _noise_of(epsilon: float, delta: float, promised: SamplePrivacy) -> float | None:
    """The task's noise, or what the owner's epsilon needs for as many steps as the task plans where that is more."""
    needed = noise_for(promised.most_steps(), promised.sampling_rate, epsilon, delta, (LEAST_NOISE, MOST_NOISE))
    return None if needed is None else max(needed, promised.noise_multiplier)
