"""What a fleet's containers, networks and volumes are called. Pure."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

BROKER, COORDINATOR, DISKS = "broker", "coordinator", "disks"
SERVICES = (BROKER, COORDINATOR, DISKS)
"""No device may have the name of one."""
FLEET_NETWORK, OPERATOR_NETWORK = "fleet", "operator"
DISKS_FOLDER = PurePosixPath("/disks")
"""Where the container `disks` has the disks of all devices."""
DIGEST_CHARACTERS = 10


@dataclass(frozen=True, slots=True)
class FleetNames:
    """Those of one run's folder: every run in it has the same, and no other folder has them."""

    project: str

    @classmethod
    def of(cls, folder: Path) -> "FleetNames":
        """`folder` is absolute."""
        return cls(f"edgeflock-{hashlib.sha256(str(folder).encode()).hexdigest()[:DIGEST_CHARACTERS]}")

    def container(self, service: str) -> str:
        """The container of a device or another service."""
        return f"{self.project}-{service}"

    def network(self, name: str) -> str:
        """As the daemon knows it."""
        return f"{self.project}_{name}"

    def disk(self, device: str) -> str:
        """The volume that is a device's disk, as the compose file knows it."""
        return f"disk-{device}"

    def disk_path(self, device: str, file: str = "") -> str:
        """A file of a device's disk, in the container `disks`."""
        return str(DISKS_FOLDER / device / file)

    @property
    def disks(self) -> str:
        """The container that has the disks of all devices."""
        return self.container(DISKS)
