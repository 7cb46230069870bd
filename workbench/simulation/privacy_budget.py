"""Which samples of a simulated device have told what a task with privacy of samples allows, and what a round adds."""

from collections.abc import Sequence

from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge, limits_of, spent_through, spent_words
from edge_agent.worker.contract import Withheld
from fleet_protocol.privacy.renyi import StepsTaken
from fleet_protocol.task_description import TaskDescription

OWNER = PrivacySettings()
"""Simulated owners demand nothing of their own."""


def spent_samples(charges: Sequence[Charge], task: TaskDescription) -> int:
    """The number up to which samples can't bear another round; 0 where all can, or nothing is counted."""
    promised = task.sample_privacy
    if promised is None:
        return 0
    return spent_through(charges, promised.mechanism, task.training.steps, limits_of(promised, OWNER))


def charged(charges: list[Charge], task: TaskDescription, newest: int) -> Withheld | None:
    """Add a round on the samples up to the number `newest`; or say why there is none."""
    promised = task.sample_privacy
    if promised is None:
        return None
    if newest <= spent_samples(charges, task):
        return Withheld("spent", spent_words(charges, newest, limits_of(promised, OWNER)), newest, 0.0)
    charges.append(Charge(newest, StepsTaken(promised.mechanism, task.training.steps)))
    return None
