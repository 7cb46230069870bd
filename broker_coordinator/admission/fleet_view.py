"""The fleet view: devices, tasks and outcomes as admission reads them, in layers that a batch can discard."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import msgspec

from broker_coordinator.admission.invited import Invited
from broker_coordinator.admission.overlay import Copyable, Overlay, changes_in, own
from broker_coordinator.admission.participation import Participation
from broker_coordinator.admission.shares import RecentDevices
from broker_coordinator.aggregation.buffer_size import is_full
from broker_coordinator.aggregation.staleness import is_foreseen, versions_ahead
from fleet_host.rate_limit import UNLIMITED, TokenBucket
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import Reason
from fleet_protocol.keys import VerifyKey, key_id
from fleet_protocol.kinds import MASKED_UPDATE, PayloadKind, PresenceState, Query
from fleet_protocol.limits import BOOT_SHIFT
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.coordinator import OpenCohort


class DeviceState(StrEnum):
    """Whether a device's key is accepted."""

    PENDING = "pending"
    APPROVED = "approved"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Device:
    """One key and the device it belongs to. A name has at most one key that is not revoked.

    `boot` is the highest boot number seen in a presence, `request_sequence` the last blob request's sequence number.
    """

    name: str
    public_key: VerifyKey
    state: DeviceState
    profile: str = ""
    software: str = ""
    presence: PresenceState = PresenceState.OFFLINE
    boot: int = 0
    request_sequence: int = -1

    @property
    def newest_boot(self) -> int:
        """The highest boot number in anything that this device has sent."""
        return max(self.boot, self.request_sequence >> BOOT_SHIFT)

    @property
    def key_id(self) -> bytes:
        """The key id in an envelope's header."""
        return key_id(self.public_key)


class TaskProgress(msgspec.Struct, frozen=True, gc=False):
    """Where a task stands once all full buffers are made into versions, as far as these are foreseen
    (`aggregation.staleness`): its version, and how many updates wait then.

    `buffer_size` is that of the next version. Where it follows the fleet, those after that may be a little larger or
    smaller: then a staleness that is predicted within a batch is a little off.

    `first_version` is its bundle's own, and so the oldest that an update may start from. `unmade` are those of the
    versions that wait to be made since before this batch. They may be stopped, and no device can train from them:
    nothing is too stale because of them. `along` are payloads that wait and take no place in the buffer.

    Of a task whose versions hide each device, a version's number is by `sums_after` larger than that of its noised sum;
    `renewed` as in `NoiseSeries`.
    """

    description: TaskDescription
    version: int
    buffer_size: int
    buffered: int = 0
    paused: bool = False
    generation: int = 0
    first_version: int = 0
    unmade: int = 0
    along: int = 0
    sums_after: int = 0
    renewed: bool = False

    @classmethod
    def standing_at(
        cls,
        description: TaskDescription,
        newest: int,
        waiting: int,
        buffer_size: int,
        *,
        paused: bool = False,
        generation: int = 0,
        first_version: int = 0,
        along: int = 0,
        sums_after: int = 0,
        renewed: bool = False,
    ) -> "TaskProgress":
        """That of a task whose newest version is `newest`, while so many updates wait, and others go `along`."""
        ahead = versions_ahead(description.aggregation, waiting, buffer_size)
        return cls(
            description,
            newest + ahead,
            buffer_size,
            waiting - ahead * buffer_size,
            paused,
            generation,
            first_version,
            unmade=ahead,
            along=along,
            sums_after=sums_after,
            renewed=renewed,
        )

    @property
    def next_sum(self) -> int:
        """The number of the noised sum that the next payload goes into, from 1."""
        return self.version + 1 - self.sums_after

    def after_one(self, *, takes_place: bool = True) -> "TaskProgress":
        """The progress once one more payload is journalled: a full buffer is as good as a version, where these are
        foreseen.
        """
        buffered, along = self.buffered + takes_place, self.along + (not takes_place)
        full = is_foreseen(self.description.aggregation) and is_full(buffered, along, self.buffer_size)
        return msgspec.structs.replace(
            self, version=self.version + full, buffered=0 if full else buffered, along=0 if full else along
        )


class Decided(msgspec.Struct, frozen=True, gc=False):
    """The journalled outcome of a payload: accepted where `reason` is None."""

    digest: bytes
    reason: Reason | None = None
    detail: str = ""


AWAITS_COHORT = "it is journalled; whether it counts is settled when its cohort is summed"


def decided_of(kind: PayloadKind, digest: bytes, *, held: bool = False, set_aside: str | None = None) -> Decided:
    """The outcome of a payload that was accepted: of a masked update, it comes with its cohort's. `held` by an
    aggregate, or `set_aside` for a reason.
    """
    if kind.decrypted is not MASKED_UPDATE or held:
        return Decided(digest)
    if set_aside is None:
        return Decided(digest, Reason.AWAITS_COHORT, AWAITS_COHORT)
    return Decided(digest, Reason.VOID_COHORT, set_aside)


OutcomeLookup = Callable[[str, int], Decided | None]


@dataclass(slots=True)
class FleetView:
    """Everything that admission may look at. `branch`, change the branch, then `absorb` or discard it.

    `devices` is by key id, revoked keys included; `key_of` names the one live key of a device. `look_up` is called only
    for sequence numbers that are not above the device's highest: for a fresh update nothing is read. `memories` are
    what consumers remember of the payloads of a task, `recent` the devices that its last accepted updates are of.
    `allowance` is every device's; `full_at` says when a device will have all of it again, if it has not, and so for
    other allowances of `AdmissionSettings`. `now` is in seconds on any one clock. `helpers` may run blocks for devices.
    `queries` are those that are open, by task and number; `clusters` those that devices are in, by task and device.

    `participations` are by task and device, where versions hide each device.

    `pending` are the keys that await approval, whoever enrolled longest ago first; in a branch, those that enrolled in
    it. `numbers` counts keys by their state. Messages in `answered`, by their digest, were answered a short time ago.
    """

    look_up: OutcomeLookup
    devices: MutableMapping[bytes, Device] = field(default_factory=dict)
    key_of: MutableMapping[str, bytes] = field(default_factory=dict)
    tasks: MutableMapping[str, TaskProgress] = field(default_factory=dict)
    memories: MutableMapping[tuple[str, PayloadKind], Copyable] = field(default_factory=dict)
    highest_sequences: MutableMapping[str, int] = field(default_factory=dict)
    decided: MutableMapping[tuple[str, int], Decided] = field(default_factory=dict)
    allowance: TokenBucket = UNLIMITED
    full_at: MutableMapping[str, float] = field(default_factory=dict)
    now: float = 0.0
    pending: dict[bytes, None] = field(default_factory=dict)
    numbers: Counter[DeviceState] = field(default_factory=Counter)
    answered: Container[bytes] = frozenset()
    byte_allowance: TokenBucket = UNLIMITED
    recent: MutableMapping[str, RecentDevices] = field(default_factory=dict)
    invitations: MutableMapping[bytes, Invited] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)
    queries: dict[str, dict[int, Query]] = field(default_factory=dict)
    clusters: dict[str, dict[str, int]] = field(default_factory=dict)
    cohorts: dict[str, OpenCohort] = field(default_factory=dict)
    participations: MutableMapping[tuple[str, str], Participation] = field(default_factory=dict)

    def newest_boot(self, device: str) -> int:
        """The highest boot number seen from the live key of a device; 0 where there is none."""
        key = self.key_of.get(device)
        return max(0, self.devices[key].newest_boot) if key is not None else 0

    def highest_sequence(self, device: str) -> int:
        """The highest sequence number of which the outcome is journalled; 0 where there is none."""
        return self.highest_sequences.get(device, 0)

    def decided_before(self, device: str, sequence: int) -> Decided | None:
        """What became of a payload with this number."""
        if sequence > self.highest_sequence(device):
            return None
        return self.decided.get((device, sequence)) or self.look_up(device, sequence)

    def set_device(self, device: Device) -> None:
        """Add a device, or replace the record of its key."""
        key = device.key_id
        if (before := self.devices.get(key)) is not None:
            self.numbers[before.state] -= 1
        self.numbers[device.state] += 1
        self.devices[key] = device
        if device.state is not DeviceState.REVOKED:
            self.key_of[device.name] = key
        self.pending.pop(key, None)
        if device.state is DeviceState.PENDING:
            self.pending[key] = None

    def set_devices(self, devices: Iterable[Device]) -> None:
        """Replace all records; of those that await approval, whoever enrolled longest ago comes first."""
        for each in (self.devices, self.key_of, self.pending, self.numbers):
            each.clear()
        for device in devices:
            self.set_device(device)

    def surplus_pending(self, branch: "FleetView", maximum: int) -> list[Device]:
        """Who makes room for those who enrolled in `branch`, so that at most `maximum` await approval."""
        if not branch.pending:
            return []
        changed = changes_in(branch.devices)
        waiting = [*(key for key in self.pending if key not in changed), *branch.pending]
        return [branch.devices[key] for key in waiting[: max(0, len(waiting) - maximum)]]

    def forget(self, device: Device) -> None:
        """Take a device out that awaits approval."""
        key = device.key_id
        del self.devices[key]
        del self.pending[key]
        self.numbers[device.state] -= 1
        if self.key_of.get(device.name) == key:
            del self.key_of[device.name]
            self.full_at.pop(enrolments_of(device), None)

    def set_decided(self, device: str, sequence: int, decided: Decided) -> None:
        """Note the outcome of a payload."""
        self.decided[device, sequence] = decided
        if sequence > self.highest_sequence(device):
            self.highest_sequences[device] = sequence

    def add_highest_sequences(self, found: Mapping[str, int]) -> None:
        """Take in what others have journalled."""
        for device, sequence in found.items():
            self.highest_sequences[device] = max(sequence, self.highest_sequence(device))

    def others_listen(self, device: str) -> bool:
        """Whether any other device is approved and connected."""
        return any(
            other.presence is PresenceState.ONLINE and other.state is DeviceState.APPROVED and other.name != device
            for other in self.devices.values()
        )

    def recent_devices(self, task: str, size: int) -> RecentDevices:
        """Those of a task with a window of this size, to be changed."""
        return own(self.recent, task, partial(RecentDevices, size))

    def memory(self, task: str, kind: PayloadKind, new: Callable[[], Copyable]) -> Copyable:
        """What a consumer remembers of a task's payloads, to be changed."""
        return own(self.memories, (task, kind), new)

    def full_after(self, bucket: TokenBucket, key: str, cost: float = 1.0) -> float | None:
        """When a bucket, which is `key`'s, will be full again if so much is taken from it; None where it is empty."""
        return bucket.after(self.full_at.get(key, self.now), self.now, cost)

    def has_room(self, bucket: TokenBucket, key: str) -> bool:
        """Whether `spend` would take one."""
        return self.full_after(bucket, key) is not None

    def spend(self, bucket: TokenBucket, key: str, cost: float = 1.0) -> bool:
        """Take so much from a bucket; False where it is empty."""
        full_at = self.full_after(bucket, key, cost)
        if full_at is not None and bucket.interval_seconds:
            self.full_at[key] = full_at
        return full_at is not None

    def branch(self, now: float = 0.0) -> "FleetView":
        """A copy at the time `now`, whose changes do not affect this one."""
        return FleetView(
            self.look_up,
            Overlay(self.devices),
            Overlay(self.key_of),
            dict(self.tasks),  # few, and read several times per message
            Overlay(self.memories),
            Overlay(self.highest_sequences),
            {},
            self.allowance,
            Overlay(self.full_at),
            now,
            {},
            self.numbers.copy(),
            self.answered,
            self.byte_allowance,
            Overlay(self.recent),
            Overlay(self.invitations),
            self.helpers,
            self.queries,
            self.clusters,
            self.cohorts,
            Overlay(self.participations),
        )

    def cluster(self, task: str, device: str) -> int | None:
        """The one that a device is in; None of a task without clusters, whose devices choose, or that is not served."""
        progress = self.tasks.get(task)
        plan = progress.description.clusters if progress else None
        if plan is None or plan.by_devices:
            return None
        return plan.cluster(self.clusters.get(task, {}).get(device, NO_CLUSTER))

    def devices_changed_in(self, branch: "FleetView") -> list[Device]:
        """The devices that differ in `branch`, or have enrolled in it and await approval."""
        return [
            device
            for key, device in changes_in(branch.devices).items()
            if key in branch.pending or device != self.devices.get(key)
        ]

    def absorb(self, branch: "FleetView") -> None:
        """Take over what changed in `branch`. Outcomes are left to the journal: they would fill the memory."""
        for device in changes_in(branch.devices).values():
            self.set_device(device)
        self.tasks.update(changes_in(branch.tasks))
        self.memories.update(changes_in(branch.memories))
        self.highest_sequences.update(changes_in(branch.highest_sequences))
        self.full_at.update(changes_in(branch.full_at))
        self.recent.update(changes_in(branch.recent))
        self.invitations.update(changes_in(branch.invitations))
        self.participations.update(changes_in(branch.participations))


def enrolments_of(device: Device) -> str:
    """Whose allowance of enrolments that is, in `FleetView.full_at`. No name has a slash."""
    return f"{device.name}/enrolments"


def repeats_of(device: Device) -> str:
    """Likewise of repeats."""
    return f"{device.name}/repeats"


def devices_taking_part(approved: Mapping[str, PresenceState]) -> list[str]:
    """Those of the approved devices that are connected; if none is, all of them."""
    online = [name for name, presence in approved.items() if presence is PresenceState.ONLINE]
    return online or list(approved)
