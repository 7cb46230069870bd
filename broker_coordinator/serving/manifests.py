"""What devices are told of every task: manifests, and to whom a generation is new, invitations behind them."""

from collections.abc import Mapping

import msgspec

from broker_coordinator.admission.fleet_view import devices_taking_part
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.announcements import Announcements
from broker_coordinator.serving.masked_cohorts import MaskedCohorts
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.task_changes import begun_generations, say_changes
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.stored_manifests import farewell
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import Served
from fleet_protocol.kinds import Invitation, Manifest


class Manifests:
    """Of the tasks that are served, and of those that were removed. `announcements` say which are to be published."""

    def __init__(
        self, signer: MessageSigner, devices: DeviceRegistry, cohorts: MaskedCohorts, announcements: Announcements
    ) -> None:
        self._signer = signer
        self._devices = devices
        self._cohorts = cohorts
        self._announcements = announcements
        self._tasks: Mapping[str, ServedTask] = {}
        self._removed: Mapping[str, Manifest] = {}
        self._stored: Mapping[str, StoredTask] | None = None
        self._invited: set[str] = set()

    def serve(self, tasks: Mapping[str, ServedTask], served: Served, removed: list[StoredTask]) -> None:
        """Tell of these from now on, and say what is changed."""
        self._tasks = tasks
        self._removed = {each.name: farewell(each.first_version, each.bundle, each.generation) for each in removed}
        stored_now = {task.name: task for task in [*removed, *(stored for stored, _ in served.readable)]}
        if self._stored is not None:
            say_changes(self._stored, stored_now)
        self._invited |= begun_generations(self._stored or {}, stored_now)
        self._stored = stored_now
        self.announce()

    def names(self) -> set[str]:
        """Of all tasks, the removed ones too."""
        return self._tasks.keys() | self._removed.keys()

    def announce(self) -> None:
        """Queue that of every task: the broker may have lost the retained one."""
        for name in (*self._removed, *self._tasks):
            self._announcements.announce(name)

    def repeat(self, now: float) -> None:
        """Publish that of every task again soon: a device has come."""
        self._announcements.repeat((*self._removed, *self._tasks), now)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` manifests and invitations; where the database fails, the others stay queued."""
        taken: list[Publication] = []
        while len(taken) < limit and (name := self._announcements.next_name(now)) is not None:
            try:
                manifest = self._manifest(name)
            except JournalUnavailableError:
                break
            if manifest is not None:
                taken.append(self._signer.manifest(name, manifest))
            self._announcements.done(name, now)
        return taken + (self._invitations(limit - len(taken)) if self._invited else [])

    def _invitations(self, limit: int) -> list[Publication]:
        """Behind the manifests that devices look at then."""
        manifests = {**self._removed, **{name: task.manifest(list) for name, task in self._tasks.items()}}
        names = sorted(self._invited)[:limit]
        self._invited -= set(names)
        at = {name: manifests[name] for name in names if name in manifests}
        return [self._signer.invitation(name, Invitation(each.version, each.generation)) for name, each in at.items()]

    def _manifest(self, name: str) -> Manifest | None:
        """None where the task is being removed this moment: then it is announced once that is read."""
        task = self._tasks.get(name)
        if task is None:
            return self._removed.get(name)
        manifest = task.manifest(lambda: devices_taking_part(self._devices.approved_presences()))
        return msgspec.structs.replace(manifest, cohort=self._cohorts.open_manifest(name))
