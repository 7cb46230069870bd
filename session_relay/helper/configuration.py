"""The helper's configuration file, `helper.toml`."""

from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.profiles import completed_by_profile
from edge_agent.sources.bound_socket import check_path
from fleet_host.configuration_file import read_configuration
from fleet_protocol.configuration import Name, PublicKey, Seconds
from fleet_protocol.limits import MAX_COHORT_DEVICES, MAX_HELPER_SESSIONS

PROGRAM = "edgeflock-helper"
CONFIGURATION = Path("/etc/edgeflock-helper/helper.toml")
"""Read where `--config` doesn't name another; the same as in systemd/edgeflock-helper.service."""
STATE_FOLDER = Path("/var/lib/edgeflock-helper")
STATUS_SOCKET = Path("/run/edgeflock-helper/status.sock")
MAX_KEPT_MIB = 1024 * 1024
"""One TiB."""


class HelperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a helper does for devices (docs/split-learning.md)."""

    sessions: Annotated[int, msgspec.Meta(ge=1, le=MAX_HELPER_SESSIONS)] = 16
    """Devices that it serves at once, at most."""
    settle_seconds: Seconds = 1.0
    """When a session ends, it sends what it has learned since the last time from the sessions of that version, as the
    session's device does; of one version at most so often."""
    gather_seconds: Seconds = 120.0
    """So long after the first session of a version, those that begin get a process of their own, which starts from the
    version's weights again."""
    answer_seconds: Seconds = 60.0
    """A version's process that gives no answer for so long is ended, and its devices go to other helpers; for a minute
    the version is offered to nobody. Devices wait for 90 seconds, unless they are told otherwise."""
    kept_mib: Annotated[int, msgspec.Meta(ge=1, le=MAX_KEPT_MIB)] = 256
    """Activations, in MiB, that each version's process keeps until the gradient for them comes, at most; half of what
    `memory_limit_mib` of `[worker]` leaves beside libraries and model, where that is less."""


class MaskHelperSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a mask helper knows and asks of every set, whatever a coordinator says (docs/secure-aggregation.md)."""

    roster: Annotated[dict[Name, PublicKey], msgspec.Meta(min_length=2)]
    """The devices that it counts: by name, the key that `edge-agent key` prints on each. The owner of this helper
    writes it, and nobody else: who is in it decides what the minimum is worth."""
    fewest_devices: Annotated[int, msgspec.Meta(ge=2, le=MAX_COHORT_DEVICES)] = 10
    """It tells no sum of fewer devices."""
    most_masked_entries: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 1 << 28
    """Most work of one answer: entries times devices times seeds that the helper holds; 2^28 take some seconds."""
    key_holder: bool = False
    """Makes it a key holder, for which updates are encrypted besides: it makes a key at its start, for tasks that name
    it. Needs `pip install 'edgeflock[homomorphic]'`."""

    def __post_init__(self) -> None:
        """Refuse a roster of which no sum can come; raises ValueError."""
        keys = len({key.strip().lower() for key in self.roster.values()})
        if keys < self.fewest_devices:
            raise ValueError(
                f"roster has {keys} devices of different keys, and fewest_devices is {self.fewest_devices}: no sum"
                " would ever be told; add the other devices"
            )


class HelperConfiguration(AgentConfiguration, frozen=True, forbid_unknown_fields=True):
    """One helper. It is a device without samples: what it does not use of agent.toml's tables may stay out."""

    helper: HelperSettings = HelperSettings()
    masks: MaskHelperSettings | None = None
    """Makes this a mask helper, which runs no blocks of models."""

    def __post_init__(self) -> None:
        """Refuse what a helper does not have; raises ValueError."""
        super().__post_init__()
        if self.sources:
            raise ValueError("sources: a helper takes no samples; leave [[sources]] out")


def load_helper_configuration(path: Path) -> HelperConfiguration:
    """Read the file, with what its profile and the site's file say where it says nothing.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong; or the profile.
    """
    configuration = read_configuration(path, HelperConfiguration, completed_by_profile)
    check_path(configuration.sample_socket)
    return configuration
