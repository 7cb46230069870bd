"""The noise of one device's rounds, which its owner may have chosen, and how they are counted then. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge, Limit, limits_of, spent_through, spent_words
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.renyi import StepsTaken
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.task_description import TaskDescription

SPENT_WITHOUT_NOISE: Final = (
    "rounds have gone over every sample here as often as the task plans, the last ones without noise; trains again when"
    " new ones come"
)


@dataclass(frozen=True, slots=True)
class RoundCount:
    """Rounds with the noise of `chosen`, in a task that has `promised`, within `limits`. No limit holds without noise:
    a sample is then in as many rounds as the task's noise would allow.
    """

    promised: SamplePrivacy
    chosen: SamplePrivacy
    limits: list[Limit]
    steps: int

    @classmethod
    def of(cls, task: TaskDescription, owner: PrivacySettings) -> "RoundCount | None":
        """None where the task promises nothing.

        Raises:
            ValueError: no noise suffices for the owner, who refuses such a task.
        """
        if (promised := task.sample_privacy) is None:
            return None
        if (chosen := owner.chosen(promised)) is None:
            raise ValueError(owner.refusal(task))
        return cls(promised, chosen, limits_of(promised, owner), task.training.steps)

    @property
    def round(self) -> StepsTaken:
        """What one round takes."""
        return StepsTaken(self.chosen.mechanism, self.steps)

    def described(self, task: TaskDescription) -> TaskDescription:
        """The task as the round trains it."""
        plan = msgspec.structs.replace(task.privacy or PrivacyPlan(), samples=self.chosen)
        return msgspec.structs.replace(task, privacy=plan)

    def spent_through(self, charges: Sequence[Charge]) -> int:
        """See `sample_ledger.spent_through`."""
        if self.chosen.noise_multiplier:
            return spent_through(charges, self.chosen.mechanism, self.steps, self.limits)
        mechanism = self.promised.mechanism
        planned = [Charge(each.newest, StepsTaken(mechanism, each.taken.steps)) for each in charges]
        return spent_through(planned, mechanism, self.steps, self.limits)

    def spent_words(self, charges: Sequence[Charge], newest: int) -> str:
        """Why no sample up to `newest` is trained on, and when one is."""
        return spent_words(charges, newest, self.limits) if self.chosen.noise_multiplier else SPENT_WITHOUT_NOISE
