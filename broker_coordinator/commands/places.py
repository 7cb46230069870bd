"""Where the parts of a server are that `setup` makes, and `backup` and `restore` find again."""

from dataclasses import dataclass
from pathlib import Path

from broker_coordinator.configuration import PROGRAM

NEXT_AUTHORITY = "next"
"""The folder, in that of the authority, of the one that will follow it."""


@dataclass(frozen=True, slots=True)
class ServerPlaces:
    """Two files, and three folders."""

    configuration: Path
    """coordinator.toml; its key, password and authority's certificate are beside it."""
    database: Path
    """As `setup` writes it into coordinator.toml; what stands there counts."""
    broker: Path
    """Mosquitto's configuration and certificate."""
    broker_state: Path
    """Its accounts, and what it retains."""
    authority: Path
    """The authority's private key, and what it has signed."""

    @property
    def next_authority(self) -> Path:
        """The authority that will follow it, from `authority renew` to `authority switch`."""
        return self.authority / NEXT_AUTHORITY


def server_places(configuration: Path, folder: Path | None) -> ServerPlaces:
    """Those of a whole machine, or all in one `folder`."""
    if folder is None:
        etc, var, state = Path("/etc"), Path("/var/lib"), Path("/var/lib/mosquitto-edgeflock")
    else:
        etc = var = folder.resolve()
        configuration, state = etc / PROGRAM / "coordinator.toml", var / "mosquitto-state"
    database = var / PROGRAM / "coordinator.db"
    return ServerPlaces(configuration, database, etc / "mosquitto-edgeflock", state, etc / "edgeflock-authority")
