"""A simulated device in cohorts of masked updates, as the shipped agent and its worker take part."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from edge_agent.core.device_budget import Sent, noised_update, why_spent
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.shell.learning.joined_cohort import joined_cohort, signed_result, why_no_cohort
from edge_agent.training.masked_update import checked_cohort, masked_result
from edge_agent.training.round import Mask
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.world import PublishedVersion


def why_no_round(
    task: TaskDescription, bundle: str, cohort: bytes, sent: Sequence[Sent], owner: PrivacySettings, *, waits: bool
) -> str | None:
    """Why no round of a task with masks begins now, in words; None where one may. `sent` are its noised updates."""
    return why_no_cohort(waits=waits, cohort=cohort) or why_spent(task, bundle, lambda _: sent, owner)


class CohortRound:
    """A round from a version, for the cohort that its manifest names.

    Raises:
        ProtocolError: the cohort is less than the device's owner asks for, or the task promises.
    """

    def __init__(
        self,
        task: TaskDescription,
        plan: MaskPlan,
        version: PublishedVersion,
        end: DeviceEnd,
        owner: PrivacySettings,
        *,
        generator: np.random.Generator,
    ) -> None:
        assert end.identity is not None  # noqa: S101 - `Simulation` signs where a task has masks
        self._identity = end.identity
        self._joined = joined_cohort(
            version.manifest.cohort,
            plan,
            self._identity,
            owner,
            sequence=int(generator.integers(MAX_SEQUENCE)),
            base_version=version.known.version,
            generation=version.known.generation,
        )
        checked = checked_cohort(self._joined, task)
        self._noised = noised_update(version.known.bundle, task)
        self.mask: Mask = partial(masked_result, cohort=checked, random_bytes=generator.bytes)

    def signed(self, result: TrainingResult, sent: list[Sent]) -> TrainingResult:
        """The result as it is sent, with the device's signature; it is added to the noised updates that were `sent`."""
        if result.masked is None:
            return result
        if self._noised is not None:
            sent.append(self._noised)
        return signed_result(result, self._joined, self._identity)
