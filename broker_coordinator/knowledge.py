"""What admission decides by: devices, tasks and what is journalled, as values that a batch can try changes on."""

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import Reason
from fleet_protocol.keys import VerifyKey, key_id
from fleet_protocol.messages import BOOT_SHIFT, PresenceState


class DeviceState(StrEnum):
    """Whether a device's key is believed."""

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
        """The name of the key in an envelope's header."""
        return key_id(self.public_key)


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """Where a task stands: its version, and how many journalled updates wait for the next one."""

    description: TaskDescription
    version: int
    buffered: int = 0

    def after_one_update(self) -> "TaskProgress":
        """The progress once one more update is journalled: a full buffer is as good as a version."""
        if self.buffered + 1 < self.description.aggregation.buffer_size:
            return replace(self, buffered=self.buffered + 1)
        return replace(self, version=self.version + 1, buffered=0)


@dataclass(frozen=True, slots=True)
class Decided:
    """The journalled outcome of an update: accepted where `reason` is None."""

    digest: bytes
    reason: Reason | None = None
    detail: str = ""


DecidedLookup = Callable[[str, int], Decided | None]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything that `admission.admit` may look at. `branch`, change the branch, then `absorb` it or let it go.

    `devices` is by key id and holds revoked keys too; `key_of` names the one live key of a device. `look_up` is asked
    only for sequence numbers that are not above the device's highest: for a fresh update nothing is read.
    """

    look_up: DecidedLookup
    devices: ChainMap[bytes, Device] = field(default_factory=ChainMap)
    key_of: ChainMap[str, bytes] = field(default_factory=ChainMap)
    tasks: ChainMap[str, TaskProgress] = field(default_factory=ChainMap)
    highest_sequences: ChainMap[str, int] = field(default_factory=ChainMap)
    decided: dict[tuple[str, int], Decided] = field(default_factory=dict)

    def newest_boot(self, device: str) -> int:
        """The highest boot number seen from the live key of a device; 0 where there is none."""
        key = self.key_of.get(device)
        return max(0, self.devices[key].newest_boot) if key is not None else 0

    def highest_sequence(self, device: str) -> int:
        """The highest update number of which the outcome is journalled; 0 where there is none."""
        return self.highest_sequences.get(device, 0)

    def decided_before(self, device: str, sequence: int) -> Decided | None:
        """What became of an update with this number."""
        if sequence > self.highest_sequence(device):
            return None
        return self.decided.get((device, sequence)) or self.look_up(device, sequence)

    def set_device(self, device: Device) -> None:
        """Add a device, or replace what is known about its key."""
        self.devices[device.key_id] = device
        if device.state is not DeviceState.REVOKED:
            self.key_of[device.name] = device.key_id

    def set_decided(self, device: str, sequence: int, decided: Decided) -> None:
        """Note the outcome of an update."""
        self.decided[device, sequence] = decided
        self.highest_sequences[device] = max(sequence, self.highest_sequence(device))

    def branch(self) -> "Knowledge":
        """A copy whose changes do not show here."""
        return Knowledge(
            self.look_up,
            self.devices.new_child(),
            self.key_of.new_child(),
            self.tasks.new_child(),
            self.highest_sequences.new_child(),
        )

    def devices_changed_in(self, branch: "Knowledge") -> list[Device]:
        """The devices of which `branch` knows something else than this."""
        return [device for key, device in branch.devices.maps[0].items() if device != self.devices.get(key)]

    def absorb(self, branch: "Knowledge") -> None:
        """Take over what changed in `branch`. Outcomes are left to the journal: they would fill the memory."""
        self.devices.update(branch.devices.maps[0])
        self.key_of.update(branch.key_of.maps[0])
        self.tasks.update(branch.tasks.maps[0])
        self.highest_sequences.update(branch.highest_sequences.maps[0])
