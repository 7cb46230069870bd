"""This device in cohorts of masked updates: which one it joins, and its signature (docs/secure-aggregation.md).

It has one update of a task on the way at most: the next round waits until that one's cohort is settled.
"""

import secrets

import msgspec

from edge_agent.core.device_budget import Sent, one_more, why_no_more, with_lost
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import JoinedCohort, TrainingResult
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import decode_payload
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.privacy.noise_shares import epsilon_told
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.messages import SealedSeeds


def noised_update(bundle: str, task: TaskDescription | None) -> Sent | None:
    """What an update of a bundle tells of this device; None where no noise hides it, or the bundle is not here."""
    noised = task.masks.noised_updates(task.trained_count) if task and task.masks else None
    return None if noised is None else one_more(bundle, noised)


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
        if self._database.waiting(task.task):
            return "its last update waits until its cohort is summed"
        if not self._versions.cohort(task.task):
            return "no cohort is open; the coordinator announces the next"
        return None

    def why_spent(self, version: ReadyVersion) -> str | None:
        """Why no other update of a version's bundle is made, in words, as it would tell more of this device than the
        bundle or its owner allows; None where one may be.
        """
        one = noised_update(version.bundle, version.description)
        if one is None or (plan := version.description.masks) is None or plan.noise is None:
            return None
        return why_no_more(plan.noise, one, self._sent(version.description.task, one), self._owner)

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
        helpers = self._owner.trusted_mask_helpers if self._owner.demands_masks else list(plan.helpers.values())
        demands = self._owner.demands_masks
        return JoinedCohort(
            manifest=manifest,
            coordinator=bytes(self._identity.coordinator),
            device=self._identity.device,
            sequence=secrets.randbelow(MAX_SEQUENCE),
            base_version=version.number,
            generation=version.generation,
            trusted_helpers=[bytes.fromhex(key.strip()) for key in helpers],
            fewest_devices=self._owner.fewest_devices if demands else 2,
            fewest_colluding=self._owner.fewest_colluding if demands else 0,
        )

    def signed(self, result: TrainingResult, joined: JoinedCohort) -> TrainingResult:
        """The result with this device's signature of its seeds.

        Raises:
            ProtocolError: they are not of the update that the worker was asked for.
        """
        if result.masked is None:
            return result
        seeds = decode_payload(result.masked.seeds, SealedSeeds)
        if (seeds.device, seeds.sequence, seeds.base_version) != (joined.device, joined.sequence, joined.base_version):
            raise ProtocolError(Reason.WRONG_RECIPIENT, "the worker has sealed seeds of another update than its own")
        signature = self._identity.sign_seeds(seeds)
        return msgspec.structs.replace(result, masked=msgspec.structs.replace(result.masked, signature=signature))
