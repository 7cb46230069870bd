"""This device in cohorts of masked updates: which one it joins, and its signature (docs/secure-aggregation.md).

It has one update of a task on the way at most: the next round waits until that one's cohort is settled.
"""

import secrets
from functools import partial

from edge_agent.core.device_budget import Sent, noised_update, why_spent, with_lost
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.learning.joined_cohort import joined_cohort, signed_result, why_no_cohort
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import JoinedCohort, TrainingResult
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.privacy.noise_shares import epsilon_told
from fleet_protocol.task_description import TaskDescription


class Cohorts:
    """`owner` is what the device's owner demands."""

    def __init__(
        self, versions: VersionFollower, database: DeviceDatabase, identity: Identity, owner: PrivacySettings
    ) -> None:
        self._versions = versions
        self._database = database
        self._identity = identity
        self._owner = owner

    def why_none(self, task: TaskDescription) -> str | None:
        """Why no round of the task begins now, in words; None where one may."""
        if task.masks is None:
            return None
        waits = bool(self._database.waiting(task.task))
        return why_no_cohort(waits=waits, cohort=self._versions.cohort(task.task))

    def why_spent(self, version: ReadyVersion) -> str | None:
        """Why no other update of a version's bundle is made, in words, as it would tell more of this device than the
        bundle or its owner allows; None where one may be.
        """
        task = version.description
        return why_spent(task, version.bundle, partial(self._sent, task.task), self._owner)

    def told(self, task: str) -> float:
        """Epsilon, at the owner's delta, that noised updates of a task have told of this device at most; 0: nothing."""
        known = self._database.known_version(task)
        one = noised_update(known.bundle, self._versions.description(task)) if known else None
        return epsilon_told((each.taken for each in self._sent(task, one)), self._owner.delta)

    def _sent(self, task: str, one: Sent | None) -> list[Sent]:
        """All noised updates of a task, those among them that damage has taken as if each were `one` more."""
        sent = self._database.noised_updates.of(task)
        return with_lost(sent, self._database.noised_updates.lost(task), one) if one else sent

    def join(self, version: ReadyVersion) -> JoinedCohort | None:
        """What the worker needs to take part in the cohort that is open; None of a task without masks, or if none is.

        The number in it is drawn: no other masked update of this device's key ever has the same.
        """
        plan = version.description.masks
        if plan is None or not (manifest := self._versions.cohort(version.description.task)):
            return None
        if self.why_spent(version) is not None:
            return None
        return joined_cohort(
            manifest,
            plan,
            self._identity,
            self._owner,
            sequence=secrets.randbelow(MAX_SEQUENCE),
            base_version=version.number,
            generation=version.generation,
        )

    def signed(self, result: TrainingResult, joined: JoinedCohort) -> TrainingResult:
        """The result with this device's signature of its seeds.

        Raises:
            ProtocolError: they are not of the update that the worker was asked for.
        """
        return signed_result(result, joined, self._identity)
