"""What this device's noised updates have told of it, and whether another one may be sent. Pure.

An update counts from the moment at which it can be sent, whatever is said of it later: a coordinator may have summed it
and say that its cohort is void.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.privacy.noise_shares import NoisedUpdates, NoiseShares, epsilon_told
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken


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
