"""What this device's noised updates have told of it, and whether another one may be sent. Pure.

An update counts from the moment at which it can be sent, whatever is said of it later: a coordinator may have summed it
and say that its cohort is void.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.privacy.noise_shares import NoisedUpdates, NoiseShares, epsilon_told
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class Sent:
    """So many noised `updates` of a bundle that were made here; one costs as much as a step with this `noise`."""

    bundle: str
    noise: float
    updates: int = 1

    @property
    def taken(self) -> StepsTaken:
        """The same as steps."""
        return StepsTaken(Mechanism(self.noise, 1.0), self.updates)


def one_more(bundle: str, noised: NoisedUpdates) -> Sent:
    """What another update of a bundle adds."""
    return Sent(bundle, noised.taken(1).mechanism.noise_multiplier)


def with_lost(sent: Sequence[Sent], lost: int, one: Sent) -> list[Sent]:
    """The same, with so many updates that are known to be missing, as if they were of this bundle."""
    return [*sent, replace(one, updates=lost)] if lost else list(sent)


def noised_update(bundle: str, task: TaskDescription | None) -> Sent | None:
    """What an update of a bundle tells of this device; None where no noise hides it, or the bundle is not here."""
    noised = task.masks.noised_updates(task.trained_count) if task and task.masks else None
    return None if noised is None else one_more(bundle, noised)


def why_spent(
    task: TaskDescription, bundle: str, sent: Callable[[Sent], Sequence[Sent]], owner: PrivacySettings
) -> str | None:
    """Why no other update of a task's bundle is made, in words, as it would tell more of this device than the bundle or
    its owner allows; None where one may be. `sent` gives all that were made for the task, those that are known to be
    missing as if each were such an update.
    """
    one = noised_update(bundle, task)
    if one is None or task.masks is None or task.masks.noise is None:
        return None
    return why_no_more(task.masks.noise, one, sent(one), owner)


def why_no_more(noise: NoiseShares, one: Sent, sent: Sequence[Sent], owner: PrivacySettings) -> str | None:
    """Why no other update of a bundle is made, in words; None where one may be. `sent` are all of its task."""
    count = sum(each.updates for each in sent if each.bundle == one.bundle)
    if count >= noise.at_most:
        return (
            f"{count} updates of this device were made for this bundle, and no more are"
            f" (privacy.masks.noise.at_most = {noise.at_most})"
        )
    told = epsilon_told([*(each.taken for each in sent), one.taken], owner.delta)
    if owner.device_epsilon and told > owner.device_epsilon:
        return (
            f"another update would tell epsilon {told:.3g} of this device, with all that its task was sent before, and"
            f" its owner allows {owner.device_epsilon:g} (device_epsilon in [privacy] of agent.toml)"
        )
    return None
